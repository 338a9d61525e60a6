// The devnet's page, while its network is broken and mended with the page's own buttons.
import { assert, frames, linkSaid, noteLink, open, picture, until } from './browser.mjs';

const [url, started, account, count] = process.argv.slice(2);
const { page, close } = await open();
await page.goto(url);
await until(page, () => document.querySelector('#link').dataset.state === 'live');

// Blocks arrive, and are verified.
const verified = (count) => until(page, (most) => {
  const rows = [...document.querySelectorAll('#blocks tbody tr')];
  return rows.filter((row) => row.cells[1].textContent.includes('verified')).length >= most;
}, count);
await verified(1);
await until(page, () => document.querySelector('#frags li.overlay'));
await verified(2);
console.log(`the second block was shown ${((Date.now() - Number(started)) / 1000).toFixed(1)} s after the devnet was started`);
await until(page, () => document.querySelector('#last tbody tr')?.cells[4].textContent === 'overlay');
await until(page, () => /^Block \d+ (is arriving|is whole)/.test(document.querySelector('#headline').textContent));
const rows = await page.locator('#nodes tbody tr').count();
assert(rows === Number(count), `${rows} nodes are shown`);
if (process.env.FRAGCAST_SCREENSHOTS) {
  await until(page, () => document.querySelectorAll('#frags li').length >= 4
    && [...document.querySelectorAll('#nodes tbody tr')].every((row) => row.cells[2].textContent === 'overlay'));
}
await picture(page, 'page-quiet');

// An account and a block.
const lookUp = async (what, expected) => {
  await page.fill('#what', what);
  await page.keyboard.press('Enter');
  await until(page, (text) => document.querySelector('#found').textContent.includes(text), expected);
};
await lookUp(account, 'ether');
await lookUp('1', 'transactions');
await lookUp('nonsense', 'write an address');

// Keys: light and dark, the drawing, the look-up.
const theme = () => page.evaluate(() => [document.documentElement.dataset.theme || 'system', getComputedStyle(document.body).backgroundColor].join(' '));
await page.evaluate(() => document.activeElement.blur());
const themes = [await theme()];
for (let n = 0; n < 3; n += 1) {
  await page.keyboard.press('t');
  themes.push(await theme());
}
assert(themes[1].startsWith('light') && themes[2].startsWith('dark') && themes[3].startsWith('system'), themes.join(', '));
assert(themes[1].split(' ').slice(1).join() !== themes[2].split(' ').slice(1).join(), 'light and dark look alike');
for (const pressed of ['true', 'false']) {
  await page.keyboard.press('Space');
  assert(await page.getAttribute('#still', 'aria-pressed') === pressed, 'the space key stops and starts the drawing');
}
await page.keyboard.press('/');
assert(await page.evaluate(() => document.activeElement.id === 'what'), 'the slash leads to the look-up');
// Every button is reached with the tabulator.
await page.evaluate(() => { document.activeElement.blur(); scrollTo(0, 0); });
const reached = new Set();
for (let n = 0; n < 60; n += 1) {
  await page.keyboard.press('Tab');
  reached.add(await page.evaluate(() => { const at = document.activeElement; return at.id || at.dataset.action || at.dataset.focus; }));
}
for (const name of ['still', 'theme', 'loss', 'kill-leader', 'block-udp', 'pause', 'stop', 'what']) assert(reached.has(name), `${name} is not reached with the tabulator: ${[...reached]}`);

// All UDP is blocked: the node in focus counts on gossip, and blocks go on arriving.
const press = (action, node) => page.click(node === undefined ? `#buttons [data-action="${action}"]` : `#nodes [data-action="${action}"][data-node="${node}"]`);
const newest = () => page.evaluate(() => Number(document.querySelector('#blocks tbody tr').cells[0].textContent.replace(/\D/g, '')));
await press('block-udp');
await until(page, () => document.querySelector('.tile[data-name="way"]').classList.contains('bad'));
const before = await newest();
await until(page, (block) => Number(document.querySelector('#blocks tbody tr').cells[0].textContent.replace(/\D/g, '')) > block + 1, before);
await until(page, () => /gossip/.test(document.querySelector('#headline').textContent));
await until(page, () => document.querySelectorAll('#frags li.gossip').length >= 3);
await picture(page, 'page-fallback');
await press('heal-udp');
await until(page, () => document.querySelector('.tile[data-name="way"]').classList.contains('good'));
await until(page, () => [...document.querySelectorAll('#story li')].some((item) => item.textContent.includes('gossip → overlay')));

// Packets are lost, and sets recovered or repaired; then no more.
await page.evaluate(() => { document.querySelector('#loss').value = 30; });
await press('loss');
await until(page, () => document.querySelector('#answer').textContent.includes('30 %'));
await page.evaluate(() => { document.querySelector('#loss').value = 0; });
await press('loss');
await until(page, () => document.querySelector('#answer').textContent.includes(' 0 %'));

// A wrong Seal: the block is rejected, built again, and verified.
await press('bad-seal');
await until(page, () => [...document.querySelectorAll('#story li')].some((item) => /rejected|wrong Seal and is built again/.test(item.textContent)));
await until(page, () => [...document.querySelectorAll('#blocks tbody tr')].some((row) => row.cells[0].textContent.includes('attempt 2') && row.cells[1].textContent.includes('verified')));

// The gateway pauses, and goes on.
await press('pause');
await until(page, () => document.documentElement.dataset.silent === 'true');
await press('resume');
await until(page, () => document.documentElement.dataset.silent === 'false');

// A follower is stopped and started again.
await press('stop', 2);
await until(page, () => /stop/.test(document.querySelectorAll('#nodes tbody tr')[2].cells[1].textContent));
await press('start', 2);
await until(page, () => /^runs/.test(document.querySelectorAll('#nodes tbody tr')[2].cells[1].textContent));

// The leader dies: the page says so. Started again, it builds its block anew.
await press('kill-leader');
await until(page, () => /The leader, node 0, is stopped: nothing for/.test(document.querySelector('#headline').textContent));
await picture(page, 'page-dead-leader');
const dead = await newest();
await until(page, () => !document.querySelector('#nodes [data-action="start"][data-node="0"]')?.disabled);
await press('start', 0);
await until(page, (block) => Number(document.querySelector('#blocks tbody tr').cells[0].textContent.replace(/\D/g, '')) > block, dead);
await until(page, () => document.documentElement.dataset.silent === 'false');

// On a telephone nothing is cut off.
await page.setViewportSize({ width: 400, height: 800 });
const { wide, by } = await page.evaluate(() => {
  const beyond = [...document.querySelectorAll('body *')].filter((part) => part.getBoundingClientRect().right > innerWidth);
  const name = (part) => `${part.tagName} ${part.id} ${part.className} ${part.textContent.trim().slice(0, 80)}`;
  return { wide: document.documentElement.scrollWidth, by: beyond.map(name) };
});
assert(wide <= 400, `the page is ${wide} pixels wide: ${by.join('; ')}`);
await page.setViewportSize({ width: 1180, height: 800 });
console.log(`${(await frames(page, 60)).toFixed(1)} frames a second with ${count} nodes`);

// The node in focus stands still while the devnet's own connection is well: the page says which node is silent.
let mute = false;
await page.routeWebSocket((to) => to.host !== new URL(url).host, (socket) => {
  const server = socket.connectToServer();
  server.onMessage((message) => { if (!mute) socket.send(message); });
});
await page.reload();
await until(page, () => document.querySelector('#link').dataset.state === 'live' && document.querySelector('#blocks tbody tr'));
await noteLink(page);
mute = true;
await linkSaid(page, '^away: no connection to node \\d: nothing for 3');
mute = false;
await until(page, () => document.querySelector('#link').dataset.state === 'live');
await close();
console.log('network: ok');
