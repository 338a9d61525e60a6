// Chromium, and what is wrong in a page that it shows.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { chromium } from 'playwright-core';

// A guard against hanging: no step waits for it.
export const GUARD = 120_000;

export const open = async (options = {}) => {
  const dir = mkdtempSync(join(tmpdir(), 'fragcast-page-'));
  const context = await chromium.launchPersistentContext(dir, {
    executablePath: process.env.CHROMIUM || '/usr/bin/chromium',
    headless: true,
    viewport: { width: 1180, height: 800 },
    ...options,
    args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
      '--disable-component-update', '--disable-sync', '--disable-dev-shm-usage'],
  });
  context.setDefaultTimeout(GUARD);
  const page = context.pages()[0] || await context.newPage();
  const wrong = [];
  page.on('console', (message) => {
    if (['error', 'warning'].includes(message.type())) wrong.push(message.text());
  });
  page.on('pageerror', (error) => wrong.push(String(error)));
  const close = async () => {
    await context.close();
    rmSync(dir, { recursive: true, force: true });
    if (wrong.length) throw new Error(`the page complains:\n${wrong.join('\n')}`);
  };
  return { page, close };
};

// Waits until a function of the page gives something true.
export const until = (page, what, argument) => page.waitForFunction(what, argument, { polling: 50, timeout: GUARD });

// Whether the page shows a verified block. The first is the open one, as soon as there is one.
export const someVerified = () => [...document.querySelectorAll('#blocks tbody tr')].some((row) => row.cells[1]?.textContent.includes('verified'));

// Notes from now on what the page says of its connection, with its headline: a state may be over before it is looked for.
export const noteLink = (page) => page.evaluate(() => {
  const link = document.querySelector('#link');
  window.linkSaid = [];
  const note = () => window.linkSaid.push(`${link.dataset.state}: ${link.textContent}: ${document.querySelector('#headline').textContent}`);
  new MutationObserver(note).observe(link, { attributes: true, childList: true, characterData: true, subtree: true });
});

export const linkSaid = (page, what) => until(page, (text) => window.linkSaid.some((said) => new RegExp(text).test(said)), what);

export const assert = (fine, text) => {
  if (!fine) throw new Error(text);
};

// A picture for the README, where one is asked for.
export const picture = async (page, name) => {
  const folder = process.env.FRAGCAST_SCREENSHOTS;
  if (!folder) return;
  await page.evaluate(() => scrollTo(0, 0));
  await page.screenshot({ path: join(folder, `${name}.png`) });
};

// Frames a second over so many animation frames.
export const frames = (page, count) => page.evaluate((most) => new Promise((resolve) => {
  let seen = 0;
  let first = 0;
  const step = (now) => {
    first ||= now;
    if (seen === most) resolve((seen * 1000) / (now - first));
    else requestAnimationFrame(step);
    seen += 1;
  };
  requestAnimationFrame(step);
}), count);
