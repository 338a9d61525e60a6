// What people do with a library, unmodified and at full speed, against whatever listens at an
// address: one line of JSON for each row of the table. Arguments: library (viem, ethers, web3, cast
// or forge), HTTP address, secret key.
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import net from "node:net";
import os from "node:os";
import path from "node:path";
import { promisify } from "node:util";

const [library, url, key] = process.argv.slice(2);
const socketUrl = url.replace("http", "ws");
const to = "0x00000000000000000000000000000000000000ee";
const LIMIT = 90_000;

// A contract that emits Ping(42) and returns 42, whatever it is called with.
const topic = "48257dc961b6f792c2b78a080dacfed693b660960a702de21cee364e20270e2f";
const runtime = `602a5f527f${topic}60205fa160205ff3`;
const init = `0x60${(runtime.length / 2).toString(16)}8060095f395ff3${runtime}`;
const abi = [
  { type: "function", name: "ping", stateMutability: "nonpayable", inputs: [],
    outputs: [{ name: "", type: "uint256" }] },
  { type: "event", name: "Ping", anonymous: false,
    inputs: [{ name: "value", type: "uint256", indexed: false }] },
];

const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

// Something in between that can break connections.
async function proxy() {
  const { hostname, port } = new URL(url);
  const sockets = new Set();
  const server = net.createServer((near) => {
    const far = net.connect(Number(port), hostname);
    for (const [one, other] of [[near, far], [far, near]]) {
      sockets.add(one);
      one.on("error", () => other.destroy());
      one.on("close", () => { sockets.delete(one); other.destroy(); });
    }
    near.pipe(far);
    far.pipe(near);
  });
  await new Promise((done) => server.listen(0, "127.0.0.1", done));
  return {
    url: `ws://127.0.0.1:${server.address().port}`,
    drop: () => { for (const socket of sockets) socket.destroy(); },
  };
}

// Two heads, with the connection broken in between; `watch` tells heads until it is told to stop.
async function reconnects(watch) {
  const door = await proxy();
  let heads = 0;
  const stop = await watch(door.url, () => { heads += 1; });
  while (heads < 1) await sleep(20);
  door.drop();
  const before = heads;
  while (heads <= before) await sleep(20);
  await stop();
}

async function viem() {
  const { createPublicClient, createWalletClient, defineChain, http, webSocket } = await import("viem");
  const { privateKeyToAccount } = await import("viem/accounts");
  const account = privateKeyToAccount(key);
  const id = await createPublicClient({ transport: http(url) }).getChainId();
  const chain = defineChain({
    id, name: "test", nativeCurrency: { name: "Ether", symbol: "ETH", decimals: 18 },
    rpcUrls: { default: { http: [url] } },
  });
  const client = createPublicClient({ chain, transport: http(url), pollingInterval: 50 });
  const wallet = createWalletClient({ account, chain, transport: http(url) });
  return {
    from: account.address,
    send: (value) => wallet.sendTransaction({ to, value }),
    wait: (hash, confirmations) =>
      client.waitForTransactionReceipt({ hash, confirmations, timeout: LIMIT }),
    deploy: () => wallet.deployContract({ abi, bytecode: init }),
    write: (address) => wallet.writeContract({ address, abi, functionName: "ping" }),
    read: async (address) =>
      (await client.simulateContract({ address, abi, functionName: "ping", account })).result,
    code: (address) => client.getCode({ address }),
    nonce: () => client.getTransactionCount({ address: account.address }),
    balance: (address) => client.getBalance({ address }),
    block: (hash) => client.getBlock({ blockHash: hash }),
    transaction: (hash) => client.getTransaction({ hash }),
    logs: (address) => client.getLogs({ address }),
    logsOf: (address, number) => client.getContractEvents({ address, abi, fromBlock: number }),
    batch: async (count) => {
      const many = createPublicClient({ chain, transport: http(url, { batch: { batchSize: 150 } }) });
      return Promise.all(Array.from({ length: count }, () => many.getBalance({ address: to })));
    },
    reconnect: () => reconnects(async (at, head) => {
      const socket = createPublicClient({
        chain, transport: webSocket(at, { reconnect: { attempts: 50, delay: 100 } }),
      });
      return socket.watchBlockNumber({ onBlockNumber: head, onError: () => {} });
    }),
  };
}

async function ethers() {
  const { Contract, ContractFactory, JsonRpcProvider, NonceManager, Wallet, WebSocketProvider } =
    await import("ethers");
  const provider = new JsonRpcProvider(url, undefined, { pollingInterval: 50, batchMaxCount: 1 });
  const wallet = new Wallet(key, provider);
  const sent = new Map();
  const keep = (tx) => { sent.set(tx.hash, tx); return tx.hash; };
  return {
    from: wallet.address,
    send: async (value) => keep(await wallet.sendTransaction({ to, value })),
    // It remembers answers for a quarter of a second, the nonce too; this is its way around that.
    sendOnly: (() => {
      const manager = new NonceManager(wallet);
      return async (value) => keep(await manager.sendTransaction({ to, value }));
    })(),
    wait: async (hash, confirmations) => sent.get(hash).wait(confirmations, LIMIT),
    deploy: async () => {
      const contract = await new ContractFactory(abi, init, wallet).deploy();
      return keep(contract.deploymentTransaction());
    },
    write: async (address) => keep(await new Contract(address, abi, wallet).ping()),
    read: (address) => new Contract(address, abi, wallet).ping.staticCall(),
    code: (address) => provider.getCode(address),
    nonce: () => provider.getTransactionCount(wallet.address),
    balance: (address) => provider.getBalance(address),
    block: (hash) => provider.getBlock(hash),
    transaction: (hash) => provider.getTransaction(hash),
    logs: (address) => provider.getLogs({ address }),
    logsOf: (address, number) =>
      new Contract(address, abi, provider).queryFilter("Ping", Number(number)),
    batch: async (count) => {
      const many = new JsonRpcProvider(url, undefined, { batchMaxCount: 150, staticNetwork: true });
      return Promise.all(Array.from({ length: count }, (_, i) =>
        many.getBalance(`0x${(i + 1).toString(16).padStart(40, "0")}`)));
    },
    // It does not connect again by itself: whoever uses it makes another.
    reconnect: () => reconnects(async (at, head) => {
      let open = true;
      const connect = () => {
        const socket = new WebSocketProvider(at);
        socket.on("block", head);
        socket.websocket.onerror = () => {};
        socket.websocket.onclose = () => { if (open) setTimeout(connect, 100); };
      };
      connect();
      return () => { open = false; };
    }),
  };
}

async function web3() {
  const { Web3 } = await import("web3");
  const client = new Web3(url);
  const { address: from } = client.eth.accounts.wallet.add(key)[0];
  client.eth.transactionPollingInterval = 50;
  client.eth.transactionReceiptPollingInterval = 50;
  const receipts = new Map();
  // The receipt is what its promise gives; the hash is an event before it.
  const start = (promised) => new Promise((done, failed) => {
    promised.once("transactionHash", (hash) => {
      receipts.set(hash, promised);
      promised.catch(() => {});
      done(hash);
    });
    promised.catch(failed);
  });
  const contract = (address) => new client.eth.Contract(abi, address);
  return {
    from,
    send: (value) => start(client.eth.sendTransaction({ from, to, value })),
    // It takes the nonce of the newest block: who sends more than one a block counts himself.
    sendOnly: (value, nonce) => start(client.eth.sendTransaction({ from, to, value, nonce })),
    wait: async (hash, confirmations) => {
      const promised = receipts.get(hash);
      if (confirmations > 1) {
        await new Promise((done, failed) => {
          promised.on("confirmation", ({ confirmations: n }) => { if (Number(n) >= confirmations) done(); });
          promised.catch(failed);
        });
      }
      return promised;
    },
    deploy: () => start(client.eth.sendTransaction({ from, data: init })),
    write: (address) => start(contract(address).methods.ping().send({ from })),
    read: (address) => contract(address).methods.ping().call({ from }),
    code: (address) => client.eth.getCode(address),
    nonce: () => client.eth.getTransactionCount(from),
    balance: (address) => client.eth.getBalance(address),
    block: (hash) => client.eth.getBlock(hash),
    transaction: (hash) => client.eth.getTransaction(hash),
    logs: (address) => client.eth.getPastLogs({ address }),
    logsOf: (address, number) => contract(address).getPastEvents("Ping", { fromBlock: number }),
    batch: async (count) => {
      const batch = new client.BatchRequest();
      const answers = Array.from({ length: count }, () =>
        batch.add({ method: "eth_getBalance", params: [to, "latest"] }));
      await batch.execute({ timeout: LIMIT });
      return Promise.all(answers);
    },
    reconnect: () => reconnects(async (at, head) => {
      const { WebSocketProvider } = await import("web3-providers-ws");
      const provider = new WebSocketProvider(at, {}, { autoReconnect: true, delay: 100, maxAttempts: 50 });
      provider.on("error", () => {});
      const socket = new Web3(provider);
      // Subscriptions end with their connection.
      provider.on("connect", () => {
        socket.eth.subscribe("newBlockHeaders").then((heads) => {
          heads.on("data", head);
          heads.on("error", () => {});
        }).catch(() => {});
      });
      return () => provider.disconnect();
    }),
  };
}

// A program of Foundry for this machine.
function foundry(name) {
  const machine = { x64: "amd64", arm64: "arm64" }[os.arch()];
  return path.resolve(`node_modules/@foundry-rs/${name}-${os.platform()}-${machine}/bin/${name}`);
}

async function cast() {
  const program = foundry("cast");
  const run = async (...args) => {
    const env = { ...process.env, ETH_RPC_URL: url };
    const { stdout } = await promisify(execFile)(program, args, { env, timeout: LIMIT });
    return stdout.trim();
  };
  const receipts = new Map();
  const sent = (text) => {
    const receipt = JSON.parse(text);
    receipts.set(receipt.transactionHash, receipt);
    return receipt.transactionHash;
  };
  const from = await run("wallet", "address", "--private-key", key);
  const signed = ["--private-key", key, "--json"];
  return {
    from,
    // It waits for the receipt.
    send: async (value) => sent(await run("send", to, "--value", `${value}`, ...signed)),
    // It takes the nonce of the newest block: who sends more than one a block counts himself.
    sendOnly: async (value, nonce) => run(
      "send", to, "--value", `${value}`, "--async", "--nonce", `${nonce}`, "--private-key", key),
    wait: async (hash, confirmations) => confirmations > 1
      ? JSON.parse(await run("receipt", hash, "--confirmations", `${confirmations}`, "--json"))
      : receipts.get(hash) ?? JSON.parse(await run("receipt", hash, "--json")),
    confirmed: async (value, confirmations) => JSON.parse(
      await run("send", to, "--value", `${value}`, "--confirmations", `${confirmations}`, ...signed)),
    deploy: async () => sent(await run("send", ...signed, "--create", init)),
    write: async (address) => sent(await run("send", address, "ping()", ...signed)),
    read: async (address) => BigInt((await run("call", address, "ping()(uint256)")).split(" ")[0]),
    code: (address) => run("code", address),
    nonce: () => run("nonce", from),
    balance: (address) => run("balance", address),
    block: async (hash) => JSON.parse(await run("block", hash, "--json")),
    transaction: async (hash) => JSON.parse(await run("tx", hash, "--json")),
    logs: async (address) => JSON.parse(await run("logs", "--address", address, "--json")),
    logsOf: async (address, number) =>
      JSON.parse(await run("logs", "--address", address, "--from-block", `${Number(number)}`, "--json")),
  };
}

const counter = `// SPDX-License-Identifier: MIT
pragma solidity ^0.8.0;
contract Counter {
  uint256 public number;
  event Set(uint256 number);
  constructor(uint256 first) { number = first; }
  function set(uint256 next) external { number = next; emit Set(next); }
}`;
const script = `// SPDX-License-Identifier: MIT
pragma solidity ^0.8.0;
import {Counter} from "../src/Counter.sol";
interface Vm { function startBroadcast() external; function stopBroadcast() external; }
contract Run {
  Vm constant vm = Vm(address(uint160(uint256(keccak256("hevm cheat code")))));
  bool public IS_SCRIPT = true;
  function run() external {
    vm.startBroadcast();
    Counter made = new Counter(7);
    for (uint256 i = 1; i < 20; i++) made.set(i);
    vm.stopBroadcast();
  }
}`;
// Forge wants a compiler that is a program. npm's is a library.
const compiler = `#!/usr/bin/env node
const solc = require(${JSON.stringify(path.resolve("node_modules/solc"))});
if (process.argv[2] === "--version") {
  console.log(\`solc, the solidity compiler commandline interface\\nVersion: \${solc.version()}\`);
} else {
  let input = "";
  process.stdin.on("data", (part) => { input += part; });
  process.stdin.on("end", () => console.log(solc.compile(input)));
}`;

async function forge() {
  const dir = mkdtempSync(path.join(os.tmpdir(), "fragcast-forge-"));
  process.on("exit", () => rmSync(dir, { recursive: true, force: true }));
  for (const part of ["src", "script"]) mkdirSync(path.join(dir, part));
  const solc = path.join(dir, "solc.cjs");
  writeFileSync(solc, compiler, { mode: 0o755 });
  writeFileSync(path.join(dir, "foundry.toml"), `[profile.default]\nsolc = "${solc}"\noffline = true\n`);
  writeFileSync(path.join(dir, "src/Counter.sol"), counter);
  writeFileSync(path.join(dir, "script/Run.s.sol"), script);
  const run = async (command, ...args) => {
    const all = [command, "--rpc-url", url, "--private-key", key, "--broadcast", "--json", ...args];
    const { stdout } = await promisify(execFile)(foundry("forge"), all, { cwd: dir, timeout: LIMIT });
    return stdout;
  };
  const from = await import("ethers").then(({ ethers }) => new ethers.Wallet(key).address);
  const ask = async (method, ...params) => {
    const headers = { "content-type": "application/json" };
    const body = JSON.stringify({ jsonrpc: "2.0", id: 1, method, params });
    return (await (await fetch(url, { method: "POST", headers, body })).json()).result;
  };
  return {
    from,
    // What was made has the number that it was made with.
    create: async () => {
      const said = await run("create", "src/Counter.sol:Counter", "--constructor-args", "5");
      const [, made] = said.match(/"deployedTo":\s*"(0x[0-9a-fA-F]{40})"/) ?? assert.fail(said);
      // number()
      assert.equal(BigInt(await ask("eth_call", { to: made, data: "0x8381f58a" }, "latest")), 5n);
    },
    script: async () => {
      const before = BigInt(await ask("eth_getTransactionCount", from, "latest"));
      await run("script", "script/Run.s.sol:Run");
      const after = BigInt(await ask("eth_getTransactionCount", from, "latest"));
      assert.equal(after - before, 20n, "transactions");
    },
  };
}

const libraries = { viem, ethers, web3, cast, forge };
const me = await libraries[library]();
const number = (value) => BigInt(value);
const succeeded = (receipt) => assert.ok(
  [1, 1n, true, "success", "0x1"].includes(receipt.status), `status ${receipt.status}`);

const rows = {
  "10 sends, each after the last one's receipt": me.send && (async () => {
    const before = number(await me.nonce());
    const had = number(await me.balance(to));
    for (let i = 0; i < 10; i++) succeeded(await me.wait(await me.send(3n), 1));
    assert.equal(number(await me.nonce()), before + 10n, "nonce");
    assert.equal(number(await me.balance(to)), had + 30n, "balance");
  }),
  "10 sends at once, then their receipts": me.send && (async () => {
    const [sent, first] = [[], number(await me.nonce())];
    for (let i = 0n; i < 10n; i++) sent.push(await (me.sendOnly ?? me.send)(1n, first + i));
    for (const hash of sent) succeeded(await me.wait(hash, 1));
  }),
  "5 deployments, each read after its receipt": me.deploy && (async () => {
    for (let i = 0; i < 5; i++) {
      const hash = await me.deploy();
      const receipt = await me.wait(hash, 1);
      succeeded(receipt);
      const address = receipt.contractAddress;
      assert.ok((await me.code(address)).endsWith(runtime), "code");
      assert.equal(number(await me.read(address)), 42n, "call");
      const called = await me.wait(await me.write(address), 1);
      succeeded(called);
      assert.equal(called.logs.length, 1, "logs of the receipt");
      const block = await me.block(called.blockHash);
      assert.equal(number(block.number), number(called.blockNumber), "block of the receipt");
      const tx = await me.transaction(called.transactionHash ?? called.hash);
      assert.equal(tx.blockHash, called.blockHash, "block of the transaction");
      assert.equal((await me.logsOf(address, called.blockNumber)).length, 1, "logs from its block on");
    }
  }),
  "3 sends with 2 confirmations": me.send && (async () => {
    for (let i = 0; i < 3; i++) {
      if (me.confirmed) succeeded(await me.confirmed(1n, 2));
      else succeeded(await me.wait(await me.send(1n), 2));
    }
  }),
  "getLogs without a range": me.deploy && (async () => {
    const receipt = await me.wait(await me.deploy(), 1);
    for (let i = 0; i < 5; i++) assert.ok(Array.isArray(await me.logs(receipt.contractAddress)));
  }),
  "a batch of 150": me.batch && (async () => {
    assert.equal((await me.batch(150)).length, 150);
  }),
  "heads after a broken WebSocket": me.reconnect,
  "a contract, created and read": me.create,
  "a script of 20 transactions": me.script,
};

// What an earlier row has left behind is done first.
async function settled() {
  const ask = async (tag) => {
    const body = { jsonrpc: "2.0", id: 1, method: "eth_getTransactionCount", params: [me.from, tag] };
    const headers = { "content-type": "application/json" };
    const answer = await fetch(url, { method: "POST", headers, body: JSON.stringify(body) });
    return (await answer.json()).result;
  };
  for (let i = 0; i < 200 && await ask("latest") !== await ask("pending"); i++) await sleep(50);
}

for (const [row, act] of Object.entries(rows)) {
  let said = null;
  if (act) {
    await settled();
    let timer;
    const late = new Promise((_, failed) => {
      timer = setTimeout(() => failed(new Error("it takes too long")), LIMIT);
    });
    try {
      await Promise.race([act(), late]);
      said = "ok";
    } catch (error) {
      said = `${error.stderr || error.shortMessage || error.message || error}`.replaceAll(/\s+/g, " ").slice(0, 200);
    }
    clearTimeout(timer);
  }
  console.log(JSON.stringify({ row, said }));
}
process.exit(0);
