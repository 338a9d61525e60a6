// What a page does with viem, unmodified: reads, sends, waits, watches. It is bundled by browser.mjs,
// which puts `NODE` and `KEY` in, and reads what stands in the body.
import { createPublicClient, createWalletClient, defineChain, http, webSocket } from "viem";
import { privateKeyToAccount } from "viem/accounts";

async function act() {
  const probe = createPublicClient({ transport: http(NODE) });
  const chain = defineChain({
    id: await probe.getChainId(), name: "devnet",
    nativeCurrency: { name: "Ether", symbol: "ETH", decimals: 18 },
    rpcUrls: { default: { http: [NODE] } },
  });
  const client = createPublicClient({ chain, transport: http(NODE), pollingInterval: 50 });
  const account = privateKeyToAccount(KEY);
  const wallet = createWalletClient({ account, chain, transport: http(NODE) });
  const to = "0x00000000000000000000000000000000000000ff";
  const before = await client.getBalance({ address: to });
  const socket = createPublicClient({ chain, transport: webSocket(NODE.replace("http", "ws")) });
  const head = new Promise((done, failed) => {
    socket.watchBlocks({ onBlock: (block) => done(block.number), onError: failed });
  });
  const hash = await wallet.sendTransaction({ to, value: 5n });
  const receipt = await client.waitForTransactionReceipt({ hash, timeout: 60_000 });
  if (receipt.status !== "success") throw new Error(receipt.status);
  for (let i = 0; await client.getBalance({ address: to }) !== before + 5n; i++) {
    if (i > 1_000) throw new Error("the balance does not change");
    await new Promise((done) => setTimeout(done, 50));
  }
  return `sent in block ${receipt.blockNumber}, head ${await head}`;
}

act().then((said) => { document.title = `ok: ${said}`; })
  .catch((error) => { document.title = `failed: ${error.message}`; })
  .then(() => fetch("/done", { method: "POST", body: document.title }));
