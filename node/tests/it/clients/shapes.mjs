// The same questions to an anvil and to a node: answers must have the same fields, of the same kinds,
// and errors where the other has errors. What differs for a reason is listed below with it.
// Arguments: the anvil's HTTP address, the node's, secret key.
import { createPublicClient, createWalletClient, defineChain, http } from "viem";
import { privateKeyToAccount } from "viem/accounts";

const [anvil, node, key] = process.argv.slice(2);
const account = privateKeyToAccount(key);
const poor = privateKeyToAccount(`0x${"11".repeat(32)}`);
const nobody = "0x00000000000000000000000000000000000000ee";
const zero = `0x${"0".repeat(64)}`;
const topic = "48257dc961b6f792c2b78a080dacfed693b660960a702de21cee364e20270e2f";
// With call data: reverts with the Solidity error "no". Without: emits Ping(42) and returns 42.
const error = `08c379a0${"20".padStart(64, "0")}${"02".padStart(64, "0")}${"6e6f".padEnd(64, "0")}`;
const reverts = [0, 1, 2, 3].map((i) => {
  const word = error.padEnd(256, "0").slice(64 * i, 64 * i + 64);
  return `7f${word}60${(32 * i).toString(16).padStart(2, "0")}52`;
}).join("") + "60645ffd";
const pings = `602a5f527f${topic}60205fa160205ff3`;
const jump = (4 + pings.length / 2).toString(16).padStart(2, "0");
const runtime = `3660${jump}57${pings}5b${reverts}`;
const size = runtime.length / 2;
const init = `0x61${size.toString(16).padStart(4, "0")}80600a5f395ff3${runtime}`;

async function post(url, body) {
  const headers = { "content-type": "application/json" };
  const answer = await fetch(url, {
    method: "POST", headers, body: typeof body === "string" ? body : JSON.stringify(body),
  });
  const text = await answer.text();
  try { return JSON.parse(text); } catch { return { text: text.slice(0, 80) }; }
}
const ask = (url, method, params) => post(url, { jsonrpc: "2.0", id: 1, method, params });

// What there is to ask about: a contract, its creation, a call and a transfer, mined.
async function ground(url) {
  const id = await createPublicClient({ transport: http(url) }).getChainId();
  const chain = defineChain({
    id, name: "test", nativeCurrency: { name: "Ether", symbol: "ETH", decimals: 18 },
    rpcUrls: { default: { http: [url] } },
  });
  const client = createPublicClient({ chain, transport: http(url), pollingInterval: 50 });
  const wallet = createWalletClient({ account, chain, transport: http(url) });
  const mined = async (hash) => {
    await client.waitForTransactionReceipt({ hash, timeout: 60_000 });
    for (let i = 0; i < 600; i++) {
      const { result } = await ask(url, "eth_getTransactionReceipt", [hash]);
      const block = result && (await ask(url, "eth_getBlockByNumber", [result.blockNumber, false])).result;
      if (block && block.hash === result.blockHash) return result;
      await new Promise((done) => setTimeout(done, 50));
    }
    throw new Error(`${hash} is in no block`);
  };
  const created = await mined(await wallet.deployContract({ abi: [], bytecode: init }));
  const called = await mined(await wallet.sendTransaction({ to: created.contractAddress, gas: 100_000n }));
  const failed = await mined(
    await wallet.sendTransaction({ to: created.contractAddress, data: "0x01", gas: 100_000n }));
  const sent = await mined(await wallet.sendTransaction({ to: nobody, value: 1n }));
  const fees = { gas: 21_000n, maxFeePerGas: 100_000_000_000n, maxPriorityFeePerGas: 0n, to: nobody };
  const sign = (who, tx) => who.signTransaction({ chainId: id, type: "eip1559", ...fees, ...tx });
  const next = Number((await ask(url, "eth_getTransactionCount", [account.address, "latest"])).result);
  return {
    id, contract: created.contractAddress, created, called, failed, sent,
    raw: {
      old: await sign(account, { nonce: 0 }),
      poor: await sign(poor, { nonce: 0, value: 1n }),
      chain: await sign(account, { nonce: next, chainId: id + 1 }),
      gas: await sign(account, { nonce: next, gas: 20_000n }),
      cheap: await sign(account, { nonce: next, maxFeePerGas: 0n }),
    },
  };
}

// [name, method, params of a ground]
const same = (name, params = () => []) => [name, name, params];
const questions = [
  same("eth_chainId"), same("net_version"), same("web3_clientVersion"), same("eth_blockNumber"),
  same("eth_syncing"), same("eth_gasPrice"), same("eth_maxPriorityFeePerGas"), same("eth_accounts"),
  same("net_listening"), same("web3_sha3", () => ["0x68656c6c6f"]), same("eth_blobBaseFee"),
  same("eth_feeHistory", () => ["0x2", "latest", [25, 75]]),
  same("eth_getBalance", () => [account.address, "latest"]),
  ["balance, pending", "eth_getBalance", () => [account.address, "pending"]],
  ["balance at a number", "eth_getBalance", (g) => [account.address, g.sent.blockNumber]],
  ["balance at a hash", "eth_getBalance", (g) => [account.address, { blockHash: g.sent.blockHash }]],
  ["balance of the future", "eth_getBalance", () => [account.address, "0xffffffff"]],
  ["balance of no address", "eth_getBalance", () => ["0x12", "latest"]],
  ["balance of nothing", "eth_getBalance", () => []],
  ["balance at no tag", "eth_getBalance", () => [account.address, "newest"]],
  same("eth_getTransactionCount", () => [account.address, "latest"]),
  same("eth_getCode", (g) => [g.contract, "latest"]),
  ["no code", "eth_getCode", () => [nobody, "latest"]],
  same("eth_getStorageAt", (g) => [g.contract, "0x0", "latest"]),
  same("eth_getProof", (g) => [g.contract, [zero], g.sent.blockNumber]),
  same("eth_call", (g) => [{ to: g.contract }, "latest"]),
  ["a call that reverts", "eth_call", (g) => [{ to: g.contract, data: "0x01" }, "latest"]],
  ["a call of a poor sender", "eth_call", (g) => [{ from: poor.address, to: g.contract, value: "0x1" }, "latest"]],
  ["a call with overrides", "eth_call", (g) => [{ to: nobody }, "latest", { [nobody]: { code: "0x602a5f5260205ff3" } }]],
  ["a call without anything", "eth_call", () => []],
  same("eth_estimateGas", (g) => [{ from: account.address, to: g.contract }]),
  ["an estimate that reverts", "eth_estimateGas", (g) => [{ to: g.contract, data: "0x01" }]],
  same("eth_createAccessList", (g) => [{ from: account.address, to: g.contract }, "latest"]),
  same("eth_getBlockByNumber", (g) => [g.called.blockNumber, false]),
  ["a block with its transactions", "eth_getBlockByNumber", (g) => [g.called.blockNumber, true]],
  ["the newest block", "eth_getBlockByNumber", () => ["latest", false]],
  ["block 0", "eth_getBlockByNumber", () => ["earliest", false]],
  ["a block of the future", "eth_getBlockByNumber", () => ["0xffffffff", false]],
  same("eth_getBlockByHash", (g) => [g.called.blockHash, true]),
  ["no block", "eth_getBlockByHash", () => [zero, true]],
  ["a hash that is too short", "eth_getBlockByHash", () => ["0x1234", true]],
  same("eth_getBlockTransactionCountByNumber", (g) => [g.called.blockNumber]),
  same("eth_getBlockTransactionCountByHash", (g) => [g.called.blockHash]),
  same("eth_getUncleCountByBlockNumber", (g) => [g.called.blockNumber]),
  same("eth_getTransactionByHash", (g) => [g.called.transactionHash]),
  ["no transaction", "eth_getTransactionByHash", () => [zero]],
  same("eth_getTransactionByBlockNumberAndIndex", (g) => [g.called.blockNumber, g.called.transactionIndex]),
  same("eth_getTransactionByBlockHashAndIndex", (g) => [g.called.blockHash, g.called.transactionIndex]),
  ["no such index", "eth_getTransactionByBlockHashAndIndex", (g) => [g.called.blockHash, "0xffff"]],
  same("eth_getTransactionReceipt", (g) => [g.called.transactionHash]),
  ["receipt of a creation", "eth_getTransactionReceipt", (g) => [g.created.transactionHash]],
  ["receipt of what failed", "eth_getTransactionReceipt", (g) => [g.failed.transactionHash]],
  ["no receipt", "eth_getTransactionReceipt", () => [zero]],
  same("eth_getBlockReceipts", (g) => [g.called.blockNumber]),
  same("eth_getLogs", (g) => [{ address: g.contract, fromBlock: g.called.blockNumber, toBlock: g.called.blockNumber }]),
  ["logs by hash", "eth_getLogs", (g) => [{ blockHash: g.called.blockHash, address: g.contract }]],
  ["logs of nobody", "eth_getLogs", () => [{ address: nobody }]],
  ["logs from the future", "eth_getLogs", () => [{ address: nobody, fromBlock: "0xffffff00", toBlock: "0xffffffff" }]],
  ["logs backwards", "eth_getLogs", () => [{ address: nobody, fromBlock: "0x2", toBlock: "0x1" }]],
  same("eth_newBlockFilter"), same("eth_newFilter", (g) => [{ address: g.contract }]),
  ["changes of no filter", "eth_getFilterChanges", () => ["0xdeadbeef"]],
  ["no filter to remove", "eth_uninstallFilter", () => ["0xdeadbeef"]],
  ["an old nonce", "eth_sendRawTransaction", (g) => [g.raw.old]],
  ["a sender without funds", "eth_sendRawTransaction", (g) => [g.raw.poor]],
  ["another chain", "eth_sendRawTransaction", (g) => [g.raw.chain]],
  ["too little gas", "eth_sendRawTransaction", (g) => [g.raw.gas]],
  ["no fee", "eth_sendRawTransaction", (g) => [g.raw.cheap]],
  ["no transaction at all", "eth_sendRawTransaction", () => ["0x1234"]],
  ["no hexadecimal", "eth_sendRawTransaction", () => ["hello"]],
  ["no such method", "eth_doesNotExist", () => []],
  ["parameters that are too many", "eth_chainId", () => [1, 2, 3]],
];
const bodies = [
  ["an empty batch", "[]"], ["no JSON", "{"], ["a number", "7"],
  ["no method", { jsonrpc: "2.0", id: 1 }],
  ["a batch", [{ jsonrpc: "2.0", id: 1, method: "eth_chainId", params: [] },
    { jsonrpc: "2.0", id: "two", method: "eth_nothing", params: [] }]],
  ["no version", { id: 1, method: "eth_chainId", params: [] }],
];

// The kind of a value: what a typed client would decode it as.
function kind(value) {
  if (value === null) return "null";
  if (Array.isArray(value)) {
    // Of a block's transactions, ours: others may be of other types.
    const ours = value.filter((item) => item?.from?.toLowerCase() === account.address.toLowerCase());
    if (ours.length > 0) return ours.map(kind);
    const kinds = [...new Set(value.map(kind).map((k) => JSON.stringify(k)))];
    return kinds.map((k) => JSON.parse(k));
  }
  if (typeof value === "object") {
    return Object.fromEntries(Object.keys(value).sort().map((key) => [key, kind(value[key])]));
  }
  if (typeof value !== "string") return typeof value;
  if (!/^0x[0-9a-f]*$/i.test(value)) return "text";
  if (value.length === 66) return "32 bytes or a quantity";
  if (value.length === 42) return "20 bytes";
  if (value === "0x0" || (/^0x[1-9a-f]/i.test(value) && value.length <= 18)) return "quantity";
  // The halves of a signature are quantities, and often shorter than 32 bytes.
  if (/^0x[1-9a-f]/i.test(value) && value.length > 56 && value.length < 66) return "32 bytes or a quantity";
  return "bytes";
}
function shape(answer) {
  if (!("error" in answer)) return { result: kind(answer.result ?? null) };
  const { code, data } = answer.error;
  return { error: data === undefined ? { code } : { code, data: kind(data) } };
}

// What one side has and the other has not, by path. Lists are compared by what is in both.
function differences(there, here, path, found) {
  const object = (value) => value !== null && typeof value === "object" && !Array.isArray(value);
  if (object(there) && object(here)) {
    for (const key of new Set([...Object.keys(there), ...Object.keys(here)])) {
      const at = path ? `${path}.${key}` : key;
      if (!(key in there)) found.push(`${at}: only here`);
      else if (!(key in here)) found.push(`${at}: only at anvil`);
      else differences(there[key], here[key], at, found);
    }
  } else if (Array.isArray(there) && Array.isArray(here)) {
    const [a, b] = [there.find(object), here.find(object)];
    if (a && b) differences(a, b, `${path}[]`, found);
    else if (there.length && here.length && JSON.stringify(there[0]) !== JSON.stringify(here[0])) {
      found.push(`${path}[]: ${JSON.stringify(there[0])} at anvil, ${JSON.stringify(here[0])} here`);
    }
  } else if (JSON.stringify(there) !== JSON.stringify(here)) {
    found.push(`${path}: ${JSON.stringify(there)} at anvil, ${JSON.stringify(here)} here`);
  }
}

// Deviations with a reason: the question's name, the deviation, the reason.
const REASONS = [
  [/./, /totalDifficulty: only at anvil/, "geth has none since the merge"],
  [/receipt/i, /blobGasPrice: only at anvil/, "the specification has it for blob transactions alone"],
  [/receipt/i, /blockTimestamp: only at anvil/, "the specification has it in logs and transactions alone"],
  [/./, /error\.data: only here/, "what is wrong with the parameters, as text"],
  [/nonce|funds|chain|gas|sender|fee/, /error\.code: -32003 at anvil, -32000 here/, "geth's code"],
  [/future/, /error\.code: -32602 at anvil, -3(2001|9001) here/, "EIP-1898's code of an unknown block"],
  [/^no transaction at all/, /error\.code: -32602 at anvil, -32000 here/, "geth's code"],
  [/^no JSON/, /error\.code: -32600 at anvil, -32700 here/, "JSON-RPC's code"],
  [/^a number/, /-32600 at anvil, -32700 here/, "JSON that is no request: -32600 would be better"],
  [/^logs from the future/, /only (here|at anvil)/, "there are none: geth's answer"],
  [/^logs backwards/, /only (here|at anvil)/, "geth's error"],
];

const [there, here] = await Promise.all([ground(anvil), ground(node)]);
let [equal, explained, open] = [0, 0, 0];
const show = process.argv.includes("--all");
const compare = (name, a, b) => {
  const found = [];
  differences(shape(a), shape(b), "", found);
  if (found.length === 0) { equal += 1; return; }
  for (const deviation of found) {
    const reason = REASONS.find(([of, part]) => of.test(name) && part.test(deviation));
    if (reason) explained += 1;
    else open += 1;
    if (!reason || show) {
      const said = [a, b].map((x) => x.error?.message).filter(Boolean).join(" | ");
      console.log(`${reason ? reason[2] : "UNEXPLAINED"}: ${name}: ${deviation}${said ? ` (${said})` : ""}`);
    }
  }
};
for (const [name, method, params] of questions) {
  const [a, b] = await Promise.all([ask(anvil, method, params(there)), ask(node, method, params(here))]);
  compare(name, a, b);
}
for (const [name, body] of bodies) {
  const [a, b] = await Promise.all([post(anvil, body), post(node, body)]);
  const whole = (x) => Array.isArray(x) ? { result: x.map(shape) } : x;
  compare(name, whole(a), whole(b));
}
const asked = questions.length + bodies.length;
console.log(`${asked} questions: ${equal} alike; ${explained} deviations with a reason, ${open} without`);
if (open === 0) console.log("shapes: ok");
process.exit(open === 0 ? 0 : 1);
