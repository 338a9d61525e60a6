// viem, unmodified, against a devnet node: reads the pending block, sends, waits for receipts,
// watches logs. Arguments: HTTP address, secret key, `preconf` for the preconfirmed view.
import assert from "node:assert/strict";
import { createPublicClient, createWalletClient, defineChain, http, parseAbi, webSocket } from "viem";
import { privateKeyToAccount } from "viem/accounts";

const [url, key, mode] = process.argv.slice(2);
const token = "0x7070707070707070707070707070707070707070";
const abi = parseAbi([
  "function transfer(address to, uint256 value) returns (bool)",
  "function balanceOf(address account) view returns (uint256)",
  "event Transfer(address indexed from, address indexed to, uint256 value)",
]);
const account = privateKeyToAccount(key);
const probe = createPublicClient({ transport: http(url) });
const chain = defineChain({
  id: await probe.getChainId(),
  name: "devnet",
  nativeCurrency: { name: "Ether", symbol: "ETH", decimals: 18 },
  rpcUrls: { default: { http: [url] } },
});
const client = createPublicClient({ chain, transport: http(url), pollingInterval: 50 });
const socket = createPublicClient({ chain, transport: webSocket(url.replace("http", "ws")) });
const wallet = createWalletClient({ account, chain, transport: http(url) });

// The pending block: unsealed, so it has no hash.
let pending = await client.getBlock({ blockTag: "pending", includeTransactions: true });
for (let i = 0; i < 200 && pending.hash !== null; i++) {
  await new Promise((done) => setTimeout(done, 20));
  pending = await client.getBlock({ blockTag: "pending", includeTransactions: true });
}
assert.equal(pending.hash, null);
assert.equal(pending.nonce, null);
const latest = await client.getBlockNumber();
assert.ok(pending.number >= latest, `${pending.number} ${latest}`);

// Logs over WebSocket, of verified blocks.
const heard = [];
const unwatch = socket.watchContractEvent({
  address: token,
  abi,
  eventName: "Transfer",
  args: { from: account.address },
  onLogs: (logs) => heard.push(...logs),
  onError: (error) => { throw error; },
});
const heads = [];
const unwatchHeads = socket.watchBlocks({ onBlock: (block) => heads.push(block.number) });

// Ether and a token transfer, one after the other without waiting between.
const before = await client.getBalance({ address: account.address, blockTag: "pending" });
const nonce = await client.getTransactionCount({ address: account.address, blockTag: "pending" });
const to = "0x00000000000000000000000000000000000000aa";
const sent = await wallet.sendTransaction({ to, value: 1234n });
assert.equal(
  await client.getTransactionCount({ address: account.address, blockTag: "pending" }),
  nonce + 1,
  "the pending nonce counts what was sent",
);
const { request } = await client.simulateContract({
  account, address: token, abi, functionName: "transfer", args: [to, 0n],
});
const called = await wallet.writeContract(request);
const receipts = [];
for (const hash of [sent, called]) {
  const receipt = await client.waitForTransactionReceipt({ hash, timeout: 60_000 });
  assert.equal(receipt.status, "success");
  assert.equal(receipt.transactionHash, hash);
  assert.notEqual(receipt.blockHash, null);
  receipts.push(receipt);
}
assert.equal(receipts[1].logs.length, 1);
assert.ok((await client.getBalance({ address: account.address, blockTag: "pending" })) < before - 1234n);
if (mode === "preconf") {
  // `latest` has it as soon as a frag has: most often before the block is sealed.
  assert.ok((await client.getBalance({ address: to })) >= 1234n);
}

// The block that a receipt names is there at once, and by the same hash when it is verified: then the
// logs are told.
const early = receipts[1].blockHash;
assert.equal((await client.getBlock({ blockHash: early })).number, receipts[1].blockNumber);
const head = () => client.getBlockNumber({ cacheTime: 0 });
if (mode !== "preconf") {
  assert.ok((await head()) >= receipts[1].blockNumber);
}
for (let i = 0; i < 600 && (await head()) < receipts[1].blockNumber; i++) {
  await new Promise((done) => setTimeout(done, 50));
}
const receipt = await client.getTransactionReceipt({ hash: called });
assert.equal((await client.getBlock({ blockHash: early })).hash, receipt.blockHash);
const block = await client.getBlock({ blockHash: receipt.blockHash, includeTransactions: true });
assert.ok(block.transactions.some((tx) => tx.hash === called && tx.from === account.address.toLowerCase()));
for (let i = 0; i < 600 && heard.length === 0; i++) {
  await new Promise((done) => setTimeout(done, 50));
}
assert.ok(heard.some((log) => log.transactionHash === called && log.args.value === 0n));
const logs = await client.getContractEvents({
  address: token, abi, eventName: "Transfer", args: { from: account.address },
  fromBlock: receipt.blockNumber, toBlock: receipt.blockNumber,
});
assert.equal(logs.filter((log) => log.transactionHash === called).length, 1);
assert.equal(
  await client.readContract({ address: token, abi, functionName: "balanceOf", args: [to] }), 0n,
);
assert.ok(heads.length > 0);
const fees = await client.estimateFeesPerGas();
assert.ok(fees.maxFeePerGas > 0n);
const history = await client.getFeeHistory({ blockCount: 2, rewardPercentiles: [50] });
assert.equal(history.reward.length, history.gasUsedRatio.length);
const proof = await client.getProof({ address: token, storageKeys: [], blockNumber: receipt.blockNumber })
  .catch((error) => { assert.match(error.message, /not kept|not here|state/); return null; });
assert.ok(proof === null || proof.codeHash.length === 66);
unwatch();
unwatchHeads();
console.log("viem: ok");
process.exit(0);
