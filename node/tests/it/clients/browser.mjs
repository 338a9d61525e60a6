// Opens a page with viem in a browser without a window; the page talks to a node of another origin.
// Arguments: the node's HTTP address, secret key, the browser, the page's port, a folder for the
// browser's profile.
import { spawn } from "node:child_process";
import http from "node:http";
import { build } from "esbuild";

const [node, key, browser, port, profile] = process.argv.slice(2);
const LIMIT = 120_000;

const { outputFiles } = await build({
  entryPoints: ["page.mjs"], bundle: true, write: false, format: "iife", platform: "browser",
  define: { NODE: JSON.stringify(node), KEY: JSON.stringify(key) },
});
const page = "<!doctype html><meta charset=utf-8><title>?</title><script src=/page.js></script>";

let told;
const said = new Promise((done) => { told = done; });
const server = http.createServer((request, response) => {
  if (request.url === "/done") {
    let body = "";
    request.on("data", (part) => { body += part; });
    request.on("end", () => { response.end(); told(body); });
  } else if (request.url === "/page.js") {
    response.setHeader("content-type", "text/javascript");
    response.end(outputFiles[0].text);
  } else {
    response.setHeader("content-type", "text/html");
    response.end(page);
  }
});
await new Promise((done) => server.listen(Number(port), "127.0.0.1", done));

// A process group of its own: the browser has processes that outlive the one that is started.
const child = spawn(browser, [
  "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
  `--user-data-dir=${profile}`, `http://127.0.0.1:${port}/`,
], { detached: true, stdio: ["ignore", "ignore", "pipe"] });
let complaint = "";
child.stderr.on("data", (part) => { complaint = (complaint + part).slice(-2_000); });
const late = setTimeout(() => told("it takes too long"), LIMIT);
child.on("exit", (code) => told(`the browser ended with ${code}`));
const end = await said;
clearTimeout(late);
try { process.kill(-child.pid, "SIGKILL"); } catch { /* it has ended */ }
server.close();
const ok = end.startsWith("ok: ");
console.log(ok ? `${end}\nbrowser: ok` : `${end}\n${complaint}`);
process.exit(ok ? 0 : 1);
