// ethers, unmodified, against a devnet node. Arguments: HTTP address, secret key.
import assert from "node:assert/strict";
import { Contract, JsonRpcProvider, Wallet, WebSocketProvider } from "ethers";

const [url, key] = process.argv.slice(2);
const provider = new JsonRpcProvider(url, undefined, { pollingInterval: 50 });
const socket = new WebSocketProvider(url.replace("http", "ws"));
const wallet = new Wallet(key, provider);
const pending = await provider.getBlock("pending");
assert.ok(pending.number >= await provider.getBlockNumber());
const token = new Contract(
  "0x7070707070707070707070707070707070707070",
  [
    "function transfer(address to, uint256 value) returns (bool)",
    "event Transfer(address indexed from, address indexed to, uint256 value)",
  ],
  wallet,
);
const to = "0x00000000000000000000000000000000000000bb";
const heard = [];
await token.connect(socket).on(token.filters.Transfer(wallet.address), (...args) => heard.push(args));
const sent = await wallet.sendTransaction({ to, value: 99n });
const receipt = await sent.wait(1, 60_000);
assert.equal(receipt.status, 1);
const called = await token.transfer(to, 0n);
const second = await called.wait(1, 60_000);
assert.equal(second.logs.length, 1);
assert.ok(await provider.getBalance(to, "pending") >= 99n);
for (let i = 0; i < 600 && heard.length === 0; i++) {
  await new Promise((done) => setTimeout(done, 50));
}
assert.ok(heard.length > 0);
console.log("ethers: ok");
process.exit(0);
