// Frames a second of a page that shows real blocks.
import { frames, open, until } from './browser.mjs';

const [url, count] = process.argv.slice(2);
const { page, close } = await open();
await page.goto(url);
await until(page, () => document.querySelector('#blocks tbody tr')?.cells[1].textContent.includes('verified'));
console.log(`${(await frames(page, Number(count))).toFixed(1)} frames a second`);
await close();
