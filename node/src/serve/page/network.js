// The devnet's page: all nodes, and the buttons that break them. The numbers below are of one node,
// the focus, whose own WebSocket the page reads.
const NODE_STATES = { up: 'runs', starting: 'starts', stopped: 'stopped', stopping: 'stops' };

class Network {
  constructor(stage, story, show, onLink) {
    Object.assign(this, { stage, story, show, onLink });
    // How the devnet's own connection is, and that to the node in focus: state, reason, whose it is.
    this.links = { devnet: ['connecting', '', 'the devnet'], focus: null };
    this.names = new Map();
    this.focus = null;
    this.wanted = null;
    const scheme = location.protocol === 'https:' ? 'wss:' : 'ws:';
    this.feed = new Feed(`${scheme}//${location.host}/`, 'devnet_subscribe', (picture) => this.take(picture), (state, why) => this.link('devnet', state, why));
    byId('controls').hidden = false;
    byId('nodes').addEventListener('click', (event) => this.click(event));
    byId('buttons').addEventListener('click', (event) => this.click(event));
  }

  // The page is live while both connections are.
  link(which, state, why = '') {
    const who = which === 'devnet' ? 'the devnet' : `node ${this.focus}`;
    this.links[which] = [state, why, who];
    const { devnet, focus } = this.links;
    this.onLink(...(devnet[0] === 'live' && focus ? focus : devnet));
  }

  async control(action) {
    const answer = byId('answer');
    setText(answer, 'asked …');
    try {
      setText(answer, await this.feed.call('devnet_control', [{ ...action, key: document.documentElement.dataset.key }]));
    } catch (error) {
      setText(answer, `not done: ${error.message}`);
    }
  }

  click(event) {
    const button = event.target.closest('button');
    if (!button) return;
    if (button.dataset.focus) {
      this.wanted = Number(button.dataset.focus);
      this.follow();
    } else if (button.dataset.node) {
      this.control({ action: button.dataset.action, node: Number(button.dataset.node) });
    } else if (button.dataset.action === 'loss') {
      this.control({ action: 'loss', share: Number(byId('loss').value) / 100 });
    } else if (button.dataset.action) {
      this.control({ action: button.dataset.action });
    }
  }

  take(picture) {
    const before = this.picture;
    this.picture = picture;
    const { nodes, net } = picture;
    this.names = new Map(nodes.map((node) => [node.short, `node ${node.i}`]));
    for (const item of net.happened) this.story.tell(item.at, item.text, `devnet ${item.at} ${item.text}`);
    this.follow();
    this.draw();
    if (picture.links && (!before || before.links !== picture.links)) {
      const { links } = picture;
      for (let i = 0; i + 2 < links.length; i += 3) this.stage.shreds(links[i], links[i + 1], links[i + 2], 'overlay');
    }
    this.buttons(net);
    this.rows(nodes);
  }

  // The focus: the chosen node, else the first that runs and does not lead.
  follow() {
    const { nodes } = this.picture;
    const runs = (node) => node && node.state === 'up';
    const chosen = this.wanted !== null ? nodes[this.wanted] : null;
    const current = nodes[this.focus];
    const next = runs(chosen) ? chosen : runs(current) && this.nodeFeed ? current : nodes.find((node) => runs(node) && !node.leads) || nodes.find(runs);
    if (!next || (this.nodeFeed && this.focus === next.i && this.nodeFeed.url === next.url)) return;
    if (this.nodeFeed) this.nodeFeed.close();
    this.focus = next.i;
    this.nodeFeed = new Feed(next.url, 'fragcast_subscribeLive', (one) => this.show(one, this.names, this), (state, why) => this.link('focus', state, why));
  }

  // Of a network whose leader is away: its name.
  stopped() {
    const leader = this.picture && this.picture.nodes.find((node) => node.leads);
    return leader && leader.state !== 'up' ? `The leader, node ${leader.i},` : '';
  }

  // How long messages take to nodes that are so many hops from the leader.
  spots() {
    const { tree, nodes } = this.picture;
    if (!tree) return [];
    const depths = new Map();
    for (const node of nodes) {
      const depth = tree.depths[node.member];
      if (!depth || node.lastMs === null) continue;
      depths.set(depth, (depths.get(depth) || []).concat(node.lastMs));
    }
    return [...depths].sort(([a], [b]) => a - b).map(([depth, all]) => [
      `${plural(depth, 'hop')}, the newest message`, ms(all.sort((a, b) => a - b)[all.length >> 1]), thousands(all.length)]);
  }

  draw() {
    const { nodes, tree } = this.picture;
    const most = Math.max(1, ...nodes.map((node) => node.have));
    const place = new Map(nodes.map((node) => [node.member, node.i]));
    const parents = new Array(nodes.length).fill(null);
    if (tree) tree.parents.forEach((parent, child) => { if (parent !== null && place.has(child) && place.has(parent)) parents[place.get(child)] = place.get(parent); });
    this.stage.set(nodes.map((node) => ({
      label: `node ${node.i}`, up: node.state === 'up', leader: node.leads, next: node.next, way: node.way,
      focus: node.i === this.focus, share: node.have / most, region: tree && node.member !== null ? tree.regions[node.member] : 0,
    })), parents);
    setText(byId('legend'), `Lines: the tree of the newest message${tree ? ` (${tree.route})` : ''}. Dots: shreds, as nodes counted them on their connections. `
      + 'A full ring: the leader; a dashed one: the next. Blue: on the overlay; brown: probing gossip; orange: on gossip; crossed out: stopped. '
      + 'Green arc: its share of the open block.');
  }

  buttons({ loss, udpBlocked, paused, faults }) {
    const wanted = [
      ['kill-leader', 'Kill the leader', 'danger', null],
      [udpBlocked ? 'heal-udp' : 'block-udp', udpBlocked ? 'Let UDP pass' : 'Block all UDP', 'danger', udpBlocked],
      [paused ? 'resume' : 'pause', paused ? 'Go on' : 'Pause the blocks', '', paused],
      ...faults.map((fault) => [fault.action, fault.label, 'danger', fault.on]),
    ];
    const box = byId('buttons');
    if (!box.children.length) {
      const label = document.createElement('label');
      label.htmlFor = 'loss';
      const range = document.createElement('input');
      Object.assign(range, { type: 'range', id: 'loss', min: 0, max: 30, step: 1, value: Math.round(loss * 100) });
      const told = document.createElement('span');
      told.id = 'lossTold';
      label.append('Lose', range, told);
      range.addEventListener('input', () => setText(told, `${range.value} % of shreds`));
      setText(told, `${range.value} % of shreds`);
      const set = document.createElement('button');
      Object.assign(set, { type: 'button', textContent: 'Set the loss' });
      set.dataset.action = 'loss';
      box.append(label, set);
    }
    wanted.forEach(([action, text, className, on], i) => {
      let button = box.children[i + 2];
      if (!button) {
        button = document.createElement('button');
        button.type = 'button';
        box.append(button);
      }
      setAttr(button, 'data-action', action);
      setAttr(button, 'class', className);
      if (on !== null && on !== undefined) setAttr(button, 'aria-pressed', String(on));
      setText(button, text);
    });
    while (box.children.length > wanted.length + 2) box.lastChild.remove();
  }

  rows(nodes) {
    const body = byId('nodes').tBodies[0];
    const most = Math.max(1, ...nodes.map((node) => node.have));
    fill(body, nodes.map((node) => [
      '', { text: NODE_STATES[node.state] + (node.leads ? ', leads' : node.next ? ', leads next' : ''), className: node.state === 'up' ? 'text' : 'text bad' },
      { text: node.state === 'up' ? WAYS[node.way] : '–', className: node.way === 'gossip' ? 'bad' : '' },
      thousands(node.sealed), thousands(node.verified), node.state === 'up' ? `${node.have} of ${most}` : '–',
      ms(node.lastMs), ms(node.p50Ms), '',
    ]));
    nodes.forEach((node, i) => {
      const row = body.rows[i];
      row.classList.toggle('focus', node.i === this.focus);
      const button = (cell, text, data) => {
        let own = cell.querySelector('button');
        if (!own) {
          own = document.createElement('button');
          own.type = 'button';
          cell.append(own);
        }
        for (const [name, value] of Object.entries(data)) setAttr(own, `data-${name}`, String(value));
        setText(own, text);
        return own;
      };
      button(row.cells[0], `node ${node.i}`, { focus: node.i }).title = 'Show this node below';
      const up = node.state === 'up';
      const last = button(row.cells[8], up ? 'Stop' : 'Start', { node: node.i, action: up ? 'stop' : 'start' });
      last.disabled = node.state === 'starting' || node.state === 'stopping';
    });
  }
}
