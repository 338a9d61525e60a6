// A node's own page: a real one, and one that is told of 400 members by this script.
import { assert, frames, linkSaid, noteLink, open, someVerified, until } from './browser.mjs';

const [url, count] = process.argv.slice(2);
{
  const { page, close } = await open({ colorScheme: 'dark' });
  await page.goto(url);
  await until(page, () => document.querySelector('#link').dataset.state === 'live');
  await until(page, someVerified);
  await until(page, () => document.querySelectorAll('#peers tbody tr').length === 2);
  assert(await page.isHidden('#controls'), 'a node has no buttons that break it');
  const dark = await page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  assert(dark === 'rgb(17, 22, 27)', `the system is dark and the page ${dark}`);
  await close();
}

// 400 members in eight regions, and a message in every tenth of a second. A picture lists so many of the peers, and says of
// all members whether they are connected: all are but the last.
const MEMBERS = 400;
const LISTED = 256;
const short = (i) => (0x10000000 + i * 7919).toString(16);
const scene = (n, at) => {
  const block = 1 + Math.floor(n / 12);
  const leader = block % MEMBERS;
  const me = 7;
  const parents = Array.from({ length: MEMBERS }, (_, i) => (i === leader ? null : i % 14 === 0 ? leader : (i - (i % 14)) % MEMBERS));
  const depths = parents.map((parent, i) => (i === leader ? 0 : parent === leader ? 1 : 2));
  const messages = Array.from({ length: n % 12 + 1 }, (_, i) => ({
    i, kind: i === 0 ? 'env' : i === 11 ? 'seal' : 'frag', bytes: i === 0 || i === 11 ? 0 : 20_000 + 9_000 * Math.abs(Math.sin(n + i)), txs: i === 0 || i === 11 ? 0 : 150,
    gas: 4_000_000, via: i % 9 === 7 ? 'repair' : i % 11 === 10 ? 'gossip' : 'overlay', sent: at - 90_000, first: at - 40_000, whole: at, executed: at + 2000, leadMs: null,
  }));
  const sum = (name) => messages.reduce((all, message) => all + message[name], 0);
  const ways = { own: 0, overlay: messages.length, repair: 0, gossip: 0 };
  return {
    node: { version: 'fixture', chainId: 901, dialect: 'v0', peer: short(me), short: short(me), leads: false, guest: false, members: MEMBERS, connected: MEMBERS - 2, guests: 0, executes: true, ready: true, why: null },
    chain: { opened: block, sealed: block - 1, last: at, latest: block - 1, pending: block, durable: block - 2, leader: { block, gateway: '0x1', peer: short(leader), short: short(leader), me: false }, next: { block: block + 1, from: block + 1, gateway: '0x2', peer: short(leader + 1), short: short((leader + 1) % MEMBERS), me: false } },
    way: { state: 'turbine', mode: 'auto', policy: 'standby', listening: false, text: 'on the overlay', dwell: 8, streak: 0, listeners: 0, gossipPeers: 12, changes: [] },
    open: { block, attempt: 0, attempts: 1, at, sealed: n % 12 === 11, count: messages.length, bytes: sum('bytes'), txs: sum('txs'), gas: sum('gas'), ways, messages },
    blocks: Array.from({ length: Math.min(16, block) }, (_, i) => ({ block: block - i, attempt: 0, attempts: 1, messages: 12, bytes: 250_000, txs: 1_500, gas: 40_000_000, ways, latencyMs: 91.2, sealedAt: at, verdict: i ? 'verified' : null, reason: null, hash: i ? '0x' + short(block - i).repeat(8) : null })),
    counts: { delivered: n, repaired: 0, repairRequested: 0, repairUseful: 0, repairGivenUp: 0, recovered: 0, forwarded: 0, gossip: 0, gossipFirst: 0, equivocations: 0, delegatedTwice: 0, badParity: 0, badMessages: 0, barred: 0, retracted: 0, mismatches: 0, injected: 0 },
    latency: { recent: { p50: 90, p90: 110, p99: 140, n: 256 }, first: ways, hops: [{ hops: 1, medianMs: 40.5, samples: 40 }, { hops: 2, medianMs: 81, samples: 160 }], regions: [], race: { turbine: { first: 0 }, gossip: { first: 0 } } },
    linked: Array.from({ length: MEMBERS - 1 }, (_, i) => i).filter((member) => member !== me),
    peers: { list: Array.from({ length: LISTED }, (_, i) => { const member = i < me ? i : i + 1; return { peer: short(member), member, rttMs: 20 + (i % 90), in: n * 3 + i % 5, out: member % 14 === 1 ? n * 5 : 0 }; }), more: MEMBERS - 2 - LISTED },
    tree: { block, attempt: 0, message: n % 12, route: 'regional', plan: '00', leader, me, peers: Array.from({ length: MEMBERS }, (_, i) => short(i)), regions: Array.from({ length: MEMBERS }, (_, i) => i % 8), parents, depths },
  };
};

const { page, close } = await open();
let telling;
let opened = 0;
await page.routeWebSocket(/./, (socket) => {
  let n = 0;
  opened += 1;
  socket.onMessage((text) => {
    const { id } = JSON.parse(text);
    socket.send(JSON.stringify({ jsonrpc: '2.0', id, result: '0x1' }));
    const tell = () => {
      const result = { seq: n + 1, at: Date.now() * 1000, whole: n === 0, ...scene(n, Date.now() * 1000) };
      socket.send(JSON.stringify({ jsonrpc: '2.0', method: 'fragcast_livePicture', params: { subscription: '0x1', result } }));
      n += 1;
    };
    const mine = {};
    telling = mine;
    const go = async () => {
      while (telling === mine) {
        tell();
        // A node, too, makes no picture for a page that is busy with the one before.
        await page.evaluate(() => 0);
        await new Promise((done) => { setTimeout(done, 100); });
      }
    };
    // The page may be closed meanwhile.
    go().catch(() => {});
  });
});
await page.goto(url);
await until(page, () => document.querySelector('#link').dataset.state === 'live');
await until(page, (rows) => document.querySelectorAll('#peers tbody tr').length === rows, LISTED + 1);
// Who is not among the listed peers is connected all the same; who is not connected is crossed out.
const crossed = () => page.evaluate(() => stage.nodes.flatMap((one, i) => (one.up ? [] : [i])).join());
await until(page, (members) => stage.nodes.length === members, MEMBERS);
assert(await crossed() === String(MEMBERS - 1), `crossed out: ${await crossed()}`);
// The drawing is alive: shreds travel on the canvas above.
await until(page, () => stage.dots.length > 0 && !stage.clean);
console.log(`${(await frames(page, Number(count))).toFixed(1)} frames a second with ${MEMBERS} members`);
// The node stands still, and the connection stays open: the page says so, and opens another.
await noteLink(page);
telling = null;
await linkSaid(page, '^away: .*nothing for 3.*last picture');
await until(page, () => document.querySelector('#link').dataset.state === 'live');
await until(page, () => /^Block/.test(document.querySelector('#headline').textContent));
assert(opened > 1, `${opened} connections were opened`);
telling = null;
await close();
console.log('node: ok');
