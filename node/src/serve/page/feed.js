// The page's only source: a WebSocket of JSON-RPC. A subscription gives a whole picture first and
// then the sections that change, and something at least once a second. A connection that is lost, or over
// which nothing comes, is made again.
const FIRST_WAIT = 400;
const LONGEST_WAIT = 4000;
const ANSWER_MS = 10000;
// Three heartbeats.
const SILENT_MS = 3000;

class Feed {
  constructor(url, method, onPicture, onState) {
    Object.assign(this, { url, method, onPicture, onState });
    this.picture = {};
    this.calls = new Map();
    this.id = 0;
    this.wait = FIRST_WAIT;
    this.closed = false;
    this.open();
  }

  open() {
    if (this.closed) return;
    this.onState('connecting');
    const socket = new WebSocket(this.url);
    this.socket = socket;
    // Who does not take a connection is waited for as long as for an answer.
    this.expect(ANSWER_MS);
    socket.onopen = () => {
      this.expect(SILENT_MS);
      this.call(this.method, []).catch((error) => this.lost(socket, error.message));
    };
    socket.onmessage = (event) => {
      this.expect(SILENT_MS);
      this.take(JSON.parse(event.data));
    };
    socket.onclose = () => this.lost(socket);
  }

  // Something comes within this time, or the connection counts as lost: a process that stands still and a
  // network that is gone close nothing.
  expect(time) {
    clearTimeout(this.watch);
    const due = performance.now() + time;
    const { socket } = this;
    this.watch = setTimeout(() => {
      // It was this page that stood still: what came meanwhile waits to be taken.
      if (performance.now() > due + 1000) this.expect(time);
      else this.lost(socket, `nothing for ${time / 1000}\u00a0s`);
    }, time);
  }

  // Forgets a connection, and makes another in a while.
  lost(socket, why) {
    if (this.socket !== socket) return;
    this.socket = null;
    clearTimeout(this.watch);
    // Its closing, which takes as long as the other side likes, is nobody's affair any more.
    socket.onopen = socket.onmessage = socket.onclose = null;
    socket.close();
    for (const call of this.calls.values()) {
      clearTimeout(call.timer);
      call.reject(new Error('the connection was lost'));
    }
    this.calls.clear();
    if (this.closed) return;
    this.onState('away', why);
    this.timer = setTimeout(() => this.open(), this.wait);
    this.wait = Math.min(this.wait * 2, LONGEST_WAIT);
  }

  take(message) {
    if (message.method) {
      const news = message.params.result;
      // Sections keep their identity while they do not change, so that nobody looks at them again.
      if (news.whole) this.picture = news;
      else this.picture = { ...this.picture, ...news };
      this.wait = FIRST_WAIT;
      this.onState('live');
      this.onPicture(this.picture);
      return;
    }
    const call = this.calls.get(message.id);
    if (!call) return;
    this.calls.delete(message.id);
    clearTimeout(call.timer);
    if (message.error) call.reject(new Error(message.error.message));
    else call.resolve(message.result);
  }

  call(method, params) {
    if (!this.socket || this.socket.readyState !== WebSocket.OPEN) {
      return Promise.reject(new Error('not connected'));
    }
    const id = ++this.id;
    this.socket.send(JSON.stringify({ jsonrpc: '2.0', id, method, params }));
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.calls.delete(id);
        reject(new Error('no answer in ten seconds'));
      }, ANSWER_MS);
      this.calls.set(id, { resolve, reject, timer });
    });
  }

  close() {
    this.closed = true;
    clearTimeout(this.timer);
    if (this.socket) this.lost(this.socket);
  }
}

// Numbers and texts.
const thousands = (n) => (n === null || n === undefined ? '–' : Math.round(n).toString().replace(/\B(?=(\d{3})+$)/g, '\u202f'));
const ms = (value) => {
  if (value === null || value === undefined) return '–';
  return value < 10 ? value.toFixed(2) : value < 100 ? value.toFixed(1) : Math.round(value).toString();
};
const megagas = (gas) => (gas === null || gas === undefined ? '–' : (gas / 1e6).toFixed(gas < 1e7 ? 2 : 1) + '\u202fM');
const seconds = (micros) => (micros / 1e6).toFixed(1) + '\u00a0s';
const plural = (n, one, many = one + 's') => `${thousands(n)} ${n === 1 ? one : many}`;
const byId = (id) => document.getElementById(id);

// Sets a text or an attribute only where it changes: what stays costs no layout.
const setText = (element, text) => {
  const value = String(text);
  if (element.lastText !== value) {
    element.lastText = value;
    element.textContent = value;
  }
};
const setAttr = (element, name, value) => {
  if (element.getAttribute(name) !== value) element.setAttribute(name, value);
};

// Fills a table's body: `rows` are arrays of cells, a cell a text or { text, class, mark }.
const fill = (body, rows) => {
  while (body.rows.length > rows.length) body.deleteRow(-1);
  rows.forEach((cells, at) => {
    const row = body.rows[at] || body.insertRow();
    while (row.cells.length < cells.length) row.insertCell();
    cells.forEach((given, column) => {
      const cell = row.cells[column];
      const { text, className = '', mark = '' } = given !== null && typeof given === 'object' ? given : { text: given };
      const shape = `${text}|${className}|${mark}`;
      if (cell.lastShape === shape) return;
      cell.lastShape = shape;
      cell.className = className;
      cell.textContent = text;
      if (mark) {
        const dot = document.createElement('i');
        dot.className = mark;
        cell.prepend(dot);
      }
    });
  });
};
