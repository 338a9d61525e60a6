// What the page shows of one node's picture: numbers, the open block, tables.

// A leader that sent nothing for this long is silent, µs; or for so many times the usual pause.
const SILENT = 3e6;
const PAUSES = 4;

const WAYS = { turbine: 'overlay', probing: 'overlay, probing gossip', gossip: 'gossip' };
const GOOD = { verified: 'good', rejected: 'bad', unverified: 'doubt' };
const SIGNS = { verified: '✓ verified', rejected: '✗ rejected', unverified: '? unverified' };

// How long nothing has come, µs, if that is unusual; 0 otherwise.
const silence = (picture) => {
  const { chain, open, at } = picture;
  if (!chain || !chain.last) return 0;
  const times = (open ? open.messages : []).map((message) => message.whole);
  const pauses = times.slice(1).map((time, i) => time - times[i]).sort((a, b) => a - b);
  const usual = pauses.length ? pauses[pauses.length >> 1] : 0;
  const since = at - chain.last;
  return since > Math.max(SILENT, PAUSES * usual) ? since : 0;
};

const headline = (picture, stopped) => {
  const { chain, open, way, blocks } = picture;
  if (!chain) return 'Waiting for the first picture';
  const silent = silence(picture);
  if (silent) {
    const who = stopped ? `${stopped} is stopped` : 'The leader is silent';
    return `${who}: nothing for ${seconds(silent)}`;
  }
  if (way && way.state === 'gossip') {
    return open ? `On gossip: block ${open.block} arrives all the same` : 'On gossip';
  }
  if (!open) return 'Waiting for the first block';
  if (!open.sealed) {
    return `Block ${open.block} is arriving: ${plural(open.count, 'message')}, ${plural(open.txs, 'transaction')}`;
  }
  const block = (blocks || []).find((one) => one.block === open.block);
  const verdict = block && block.verdict ? `, ${block.verdict}` : '';
  return `Block ${open.block} is whole${verdict}: ${plural(open.txs, 'transaction')}`;
};

const leadText = (picture, names) => {
  const { chain, way, node } = picture;
  if (!chain || !node) return '';
  const name = (of) => (of.me ? 'this node' : names.get(of.short) || of.short || 'nobody yet');
  const leader = chain.leader ? `Led by ${name(chain.leader)}` : 'No leader is known';
  const next = chain.next ? `, next ${name(chain.next)} from block ${chain.next.from}` : '';
  const ready = node.ready ? '' : ` Not ready: ${node.why}.`;
  return `${leader}${next}; ${way ? way.text : ''}.${ready}`;
};

const tile = (name, value, note, className = '') => ({ name, value, note, className });

const showTiles = (element, tiles) => {
  while (element.children.length > tiles.length) element.lastChild.remove();
  tiles.forEach((given, i) => {
    let box = element.children[i];
    if (!box) {
      box = document.createElement('div');
      for (const tag of ['span', 'b', 'span']) box.append(document.createElement(tag));
      box.firstChild.className = 'name';
      element.append(box);
    }
    setAttr(box, 'class', `tile ${given.className}`.trim());
    setAttr(box, 'data-name', given.name);
    setText(box.children[0], given.name);
    setText(box.children[1], given.value);
    setText(box.children[2], given.note);
  });
};

const tilesOf = ({ chain, way, latency, node, counts, peers }) => {
  const recent = latency && latency.recent;
  return [
    tile('block', chain.opened === null ? '–' : thousands(chain.opened),
      chain.latest === null ? 'nothing is executed here' : `verified ${thousands(chain.latest)}, on disk ${thousands(chain.durable)}`),
    tile('way', WAYS[way.state] || way.state, way.mode === 'auto' ? (way.listening ? 'listening to gossip' : 'gossip in reserve') : `ordered: ${way.mode}`,
      way.state === 'gossip' ? 'bad' : way.state === 'probing' ? 'doubt' : 'good'),
    tile('latency', recent ? `${ms(recent.p50)} ms` : '–', recent ? `p99 ${ms(recent.p99)} ms of ${recent.n} messages` : 'of messages of others'),
    tile('peers', thousands(node.connected), `${thousands(node.members)} members, ${thousands(way.gossipPeers)} over gossip`),
    tile('repaired', thousands(counts.repaired), `${thousands(counts.repairRequested)} sets asked for, ${thousands(counts.repairGivenUp)} given up`),
    tile('equivocations', thousands(counts.equivocations), `${thousands(counts.barred)} barred, ${thousands(counts.retracted)} retracted`,
      counts.equivocations > 0 ? 'bad' : ''),
  ];
};

const showOpen = (open) => {
  const list = byId('frags');
  if (!open) {
    setText(byId('openSum'), 'nothing yet');
    return;
  }
  setText(byId('openTitle'), `Block ${open.block}${open.attempts > 1 ? `, attempt ${open.attempts}` : ''}`);
  setText(byId('openSum'), `${plural(open.count, 'message')}, ${thousands(open.bytes / 1000)} kB, ${plural(open.txs, 'transaction')}, ${megagas(open.gas)} gas; `
    + `overlay ${open.ways.overlay}, repair ${open.ways.repair}, gossip ${open.ways.gossip}${open.ways.own ? `, own ${open.ways.own}` : ''}`);
  const most = Math.max(1, ...open.messages.map((message) => message.bytes));
  while (list.children.length > open.messages.length) list.lastChild.remove();
  open.messages.forEach((message, i) => {
    let bar = list.children[i];
    if (!bar) {
      bar = document.createElement('li');
      list.append(bar);
    }
    // Env and Seal carry next to nothing: they are shown low, so that all are seen.
    const height = message.kind === 'frag' ? 14 + Math.round((message.bytes / most) * 82) : 8;
    const done = message.executed || message.kind !== 'frag';
    const shape = `${message.i} ${message.via} ${height} ${done}`;
    if (bar.lastShape === shape) return;
    bar.lastShape = shape;
    bar.className = `${message.via}${done ? ' done' : ''}`;
    bar.dataset.index = message.i;
    bar.style.height = `${height}px`;
    bar.dataset.tip = `${message.kind} ${message.i}: ${thousands(message.bytes)} bytes, ${plural(message.txs, 'transaction')}\nfirst by ${message.via}`;
  });
  const rows = open.messages.slice(-6).reverse().map((message) => [
    `${message.kind} ${message.i}`, thousands(message.bytes), thousands(message.txs), megagas(message.gas),
    { text: message.via, mark: message.via },
    message.sent && message.via !== 'own' ? ms((message.whole - message.sent) / 1e3) : '–',
  ]);
  fill(byId('last').tBodies[0], rows);
};

const showBlocks = (blocks) => fill(byId('blocks').tBodies[0], blocks.map((block) => [
  thousands(block.block) + (block.attempts > 1 ? ` (attempt ${block.attempts})` : ''),
  block.verdict ? { text: SIGNS[block.verdict] + (block.reason ? `: ${block.reason.slice(0, 60)}` : ''), className: GOOD[block.verdict] } : block.sealedAt ? 'executing' : 'arriving',
  thousands(block.txs), megagas(block.gas), thousands(block.bytes / 1000),
  thousands(block.ways.overlay), thousands(block.ways.repair), thousands(block.ways.gossip),
  ms(block.latencyMs), block.hash ? block.hash.slice(0, 10) + '…' : '–',
]));

const showLatency = ({ latency }, spots, tree) => {
  const { recent, first, race } = latency;
  const ahead = (side) => (race && race[side] && race[side].leadMs ? ` by ${ms(race[side].leadMs.p50)} ms` : '');
  setText(byId('latencySum'), recent
    ? `p50 ${ms(recent.p50)} ms, p90 ${ms(recent.p90)} ms, p99 ${ms(recent.p99)} ms. First here: overlay ${thousands(first.overlay)}, repair ${thousands(first.repair)}, gossip ${thousands(first.gossip)}. `
      + `Of messages that came both ways the overlay was first ${thousands(race.turbine.first)} times${ahead('turbine')}, gossip ${thousands(race.gossip.first)} times${ahead('gossip')}.`
    : 'From the leader\u2019s sending to the whole message here, by both clocks.');
  const rows = latency.hops.map((hop) => [`${plural(hop.hops, 'hop')}, by receipts`, ms(hop.medianMs), thousands(hop.samples)])
    .concat(latency.regions.map((of) => [`region ${of.region}, by receipts`, ms(of.medianMs), thousands(of.samples)]))
    .concat(spots);
  if (!rows.length && tree && tree.me !== null && tree.depths[tree.me]) rows.push([`${plural(tree.depths[tree.me], 'hop')} to this node now`, ms(recent && recent.p50), thousands(recent && recent.n)]);
  fill(byId('hops').tBodies[0], rows);
};

const showPeers = ({ peers }, names) => {
  const rows = peers.list.map((peer) => [names.get(peer.peer) || peer.peer, ms(peer.rttMs), thousands(peer.in), thousands(peer.out)]);
  if (peers.more) rows.push([`and ${thousands(peers.more)} more`, '', '', '']);
  fill(byId('peers').tBodies[0], rows);
};

// Latencies of the last messages, for the line.
class Latencies {
  constructor() {
    this.values = [];
    this.place = -1;
  }

  take(open) {
    if (!open) return;
    for (const message of open.messages) {
      if (!message.sent || message.via === 'own') continue;
      const place = open.block * 1e6 + open.attempt * 1e5 + message.i;
      if (place <= this.place) continue;
      this.place = place;
      this.values.push((message.whole - message.sent) / 1e3);
    }
    if (this.values.length > 180) this.values = this.values.slice(-180);
  }
}

// What happened, newest first: told from the differences of two pictures.
class Story {
  constructor(list) {
    this.list = list;
    this.told = new Set();
  }

  tell(at, text, key = text) {
    if (this.told.has(key)) return;
    this.told.add(key);
    const item = document.createElement('li');
    const time = document.createElement('time');
    time.textContent = new Date(at / 1e3).toLocaleTimeString();
    item.append(time, text);
    this.list.prepend(item);
    while (this.list.children.length > 60) this.list.lastChild.remove();
    if (this.told.size > 2000) this.told = new Set([...this.told].slice(-1000));
  }

  take(picture, before) {
    const { at, blocks, way, counts, node } = picture;
    if (way && (!before || before.way !== way)) {
      for (const change of [...way.changes].reverse()) {
        this.tell(change.at, `way: ${WAYS[change.from]} → ${WAYS[change.to]}, at block ${change.block}: ${change.text}`, `way ${change.at}`);
      }
    }
    for (const block of blocks || []) {
      if (block.verdict && block.verdict !== 'verified') {
        this.tell(at, `block ${block.block} ${block.verdict}: ${block.reason}`, `${block.block} ${block.attempt} ${block.verdict}`);
      }
      if (block.attempts > 1) this.tell(at, `block ${block.block} was begun again: attempt ${block.attempts}`, `${block.block} attempt ${block.attempts}`);
    }
    if (!before || !before.counts || before.counts === counts) return;
    const more = (name) => counts[name] - before.counts[name];
    if (more('repaired') > 0) this.tell(at, `${plural(more('repaired'), 'message')} repaired`, `repaired ${counts.repaired}`);
    if (more('equivocations') > 0) this.tell(at, 'a leader contradicted itself: the proof is kept', `equivocation ${counts.equivocations}`);
    if (more('barred') > 0) this.tell(at, `${plural(more('barred'), 'peer')} barred`, `barred ${counts.barred}`);
    if (before.node && before.node.ready !== node.ready) this.tell(at, node.ready ? 'the node is ready' : `not ready: ${node.why}`, `ready ${at}`);
  }
}
