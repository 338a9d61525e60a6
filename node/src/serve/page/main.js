// Puts the page together.
const MODE = document.documentElement.dataset.mode;
const THEMES = ['system', 'light', 'dark'];

const stage = new Stage(byId('net'));
const story = new Story(byId('story'));
const latencies = new Latencies();
let shown = null;
let call = () => Promise.reject(new Error('not connected'));

const onLink = (state, why, who = 'the node') => {
  const link = byId('link');
  const to = who === 'the node' ? '' : ` to ${who}`;
  setAttr(link, 'data-state', state);
  setText(link, state === 'live' ? 'live' : state === 'away' ? `no connection${to}${why ? `: ${why}` : ', trying again'}` : `connecting${to}`);
  // What is shown was true then. The next picture has its own headline.
  if (state === 'away' && shown) setText(byId('headline'), `No connection to ${who}: this is its last picture`);
};

// The drawing of one node's page: its members, the tree, and the shreds on its own connections.
const drawNode = (picture, before) => {
  const { tree, peers, chain, node, way, open } = picture;
  const me = tree ? tree.me : null;
  if (tree) {
    const leader = tree.leader;
    const next = chain.next ? tree.peers.indexOf(chain.next.short) : -1;
    const linked = new Set(picture.linked || []);
    const own = (i) => i === me;
    stage.set(tree.peers.map((peer, i) => ({
      label: own(i) ? 'this node' : peer, up: own(i) || linked.has(i) || node.guest, leader: i === leader, next: i === next && i !== leader,
      me: own(i), way: own(i) ? way.state : 'turbine', share: own(i) && open && !open.sealed ? 0.5 : 0, region: tree.regions[i],
    })), tree.parents);
  } else {
    const list = [{ label: 'this node', up: true, me: true, way: way.state, region: 0 }];
    stage.set(list.concat(peers.list.map((peer) => ({ label: peer.peer, up: true, way: 'turbine', region: 0 }))), []);
  }
  setText(byId('legend'), tree
    ? `Lines: the tree of the newest message (${tree.route}). Dots: shreds on this node's own connections. Crossed out: not connected to this node.`
    : 'Dots: shreds on this node\u2019s connections.');
  if (!before || before.peers === peers || !before.peers) return;
  const known = new Map(before.peers.list.map((peer) => [peer.peer, peer]));
  const centre = tree ? me : 0;
  peers.list.forEach((peer, at) => {
    const old = known.get(peer.peer);
    const other = tree ? peer.member : at + 1;
    if (!old || other === null || centre === null) return;
    if (peer.in > old.in) stage.shreds(other, centre, peer.in - old.in, 'overlay');
    if (peer.out > old.out) stage.shreds(centre, other, peer.out - old.out, 'own');
  });
};

const show = (picture, names, network) => {
  const before = shown;
  shown = picture;
  const changed = (name) => !before || before[name] !== picture[name];
  if (!picture.chain || !picture.node) return;
  const { node } = picture;
  const which = network ? `node ${network.focus} of the devnet` : `node ${node.short}`;
  setText(byId('kicker'), `fragcast ${node.version} · chain ${node.chainId} · ${which}`);
  const text = headline(picture, network ? network.stopped() : '');
  setText(byId('headline'), text);
  setAttr(document.documentElement, 'data-silent', String(silence(picture) > 0));
  document.title = `${picture.chain.opened ?? '–'} · fragcast`;
  setText(byId('lead'), leadText(picture, names));
  showTiles(byId('now'), tilesOf(picture));
  if (changed('open')) {
    showOpen(picture.open);
    latencies.take(picture.open);
    spark(byId('spark'), latencies.values, stage.colours);
  }
  if (changed('blocks')) showBlocks(picture.blocks);
  if (changed('latency') || network) showLatency(picture, network ? network.spots() : [], picture.tree);
  if (changed('peers')) showPeers(picture, names);
  story.take(picture, before && before.node && before.node.peer === node.peer ? before : null);
  if (!network) drawNode(picture, before);
};

let network = null;
if (MODE === 'network') {
  network = new Network(stage, story, show, onLink);
  call = (method, params) => (network.nodeFeed ? network.nodeFeed.call(method, params) : Promise.reject(new Error('no node runs')));
} else {
  const scheme = location.protocol === 'https:' ? 'wss:' : 'ws:';
  const feed = new Feed(`${scheme}//${location.host}/`, 'fragcast_subscribeLive', (picture) => show(picture, new Map(), null), onLink);
  call = (method, params) => feed.call(method, params);
}

byId('lookup').addEventListener('submit', async (event) => {
  event.preventDefault();
  try {
    showFound(await lookUp(call, byId('what').value));
  } catch (error) {
    showFound([['not found', error.message]]);
  }
});

const still = byId('still');
const setStill = (on) => {
  stage.still = on;
  setAttr(still, 'aria-pressed', String(on));
  setText(still, on ? 'Draw again' : 'Pause drawing');
};
still.addEventListener('click', () => setStill(!stage.still));
if (stage.still) setStill(true);

const theme = byId('theme');
const setTheme = (name) => {
  if (name === 'system') delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = name;
  setText(theme, `Theme: ${name}`);
  stage.readColours();
  spark(byId('spark'), latencies.values, stage.colours);
};
const nextTheme = () => {
  const now = document.documentElement.dataset.theme || 'system';
  setTheme(THEMES[(THEMES.indexOf(now) + 1) % THEMES.length]);
};
theme.addEventListener('click', nextTheme);
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => stage.readColours());

document.addEventListener('keydown', (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest('input, button, a, summary')) return;
  if (event.key === ' ') setStill(!stage.still);
  else if (event.key === 't') nextTheme();
  else if (event.key === '/') byId('what').focus();
  else return;
  event.preventDefault();
});

const tip = byId('tip');
const showTip = (event) => {
  let text = '';
  const on = event.target.closest ? event.target.closest('[data-tip]') : null;
  if (on) text = on.dataset.tip;
  else if (event.target.id === 'net') {
    const at = stage.find(event.offsetX, event.offsetY);
    if (at >= 0) {
      const node = stage.nodes[at];
      text = [node.label, node.leader && 'leads', node.next && 'leads next', node.up ? node.way : 'away'].filter(Boolean).join('\n');
    }
  }
  tip.hidden = !text;
  if (!text) return;
  setText(tip, text);
  const box = tip.getBoundingClientRect();
  tip.style.left = Math.max(6, Math.min(event.clientX + 12, innerWidth - box.width - 6)) + 'px';
  tip.style.top = (event.clientY + 18 + box.height < innerHeight ? event.clientY + 18 : event.clientY - box.height - 10) + 'px';
};
addEventListener('pointermove', showTip);
addEventListener('pointerdown', showTip);
addEventListener('scroll', () => { tip.hidden = true; }, true);
