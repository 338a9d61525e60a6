// Frames a second of a page that shows real blocks.
import { frames, open, someVerified, until } from './browser.mjs';

const [url, count] = process.argv.slice(2);
const { page, close } = await open();
await page.goto(url);
await until(page, someVerified);
console.log(`${(await frames(page, Number(count))).toFixed(1)} frames a second`);
await close();
