"""The rows of table.mjs with web3.py, unmodified. Arguments: HTTP address, secret key."""
import asyncio
import json
import sys
import time

from web3 import AsyncWeb3, Web3, WebSocketProvider
from web3.middleware import SignAndSendRawMiddlewareBuilder

url, key = sys.argv[1:3]
LIMIT = 90
TO = "0x00000000000000000000000000000000000000eE"
TOPIC = "48257dc961b6f792c2b78a080dacfed693b660960a702de21cee364e20270e2f"
RUNTIME = f"602a5f527f{TOPIC}60205fa160205ff3"
INIT = f"0x60{len(RUNTIME) // 2:02x}8060095f395ff3{RUNTIME}"
ABI = [
    {"type": "function", "name": "ping", "stateMutability": "nonpayable", "inputs": [],
     "outputs": [{"name": "", "type": "uint256"}]},
    {"type": "event", "name": "Ping", "anonymous": False,
     "inputs": [{"name": "value", "type": "uint256", "indexed": False}]},
]

web3 = Web3(Web3.HTTPProvider(url))
account = web3.eth.account.from_key(key)
web3.middleware_onion.inject(SignAndSendRawMiddlewareBuilder.build(account), layer=0)
web3.eth.default_account = account.address
to = web3.to_checksum_address(TO)


def send(value):
    return web3.eth.send_transaction({"from": account.address, "to": to, "value": value})


def wait(sent):
    receipt = web3.eth.wait_for_transaction_receipt(sent, timeout=LIMIT, poll_latency=0.05)
    assert receipt.status == 1, receipt.status
    return receipt


def one_after_another():
    before, had = web3.eth.get_transaction_count(account.address), web3.eth.get_balance(to)
    for _ in range(10):
        wait(send(3))
    assert web3.eth.get_transaction_count(account.address) == before + 10, "nonce"
    assert web3.eth.get_balance(to) == had + 30, "balance"


def at_once():
    for sent in [send(1) for _ in range(10)]:
        wait(sent)


def deployments():
    for _ in range(5):
        created = wait(web3.eth.contract(abi=ABI, bytecode=INIT).constructor().transact())
        contract = web3.eth.contract(address=created.contractAddress, abi=ABI)
        assert web3.eth.get_code(contract.address).hex().endswith(RUNTIME), "code"
        assert contract.functions.ping().call() == 42, "call"
        called = wait(contract.functions.ping().transact())
        assert len(called.logs) == 1, "logs of the receipt"
        assert web3.eth.get_block(called.blockHash).number == called.blockNumber, "block"
        tx = web3.eth.get_transaction(called.transactionHash)
        assert tx.blockHash == called.blockHash, "block of the transaction"
        assert len(contract.events.Ping().get_logs(from_block=called.blockNumber)) == 1, "logs"


def confirmations():
    for _ in range(3):
        receipt = wait(send(1))
        end = time.monotonic() + LIMIT
        while web3.eth.block_number < receipt.blockNumber + 1:
            assert time.monotonic() < end, "it takes too long"
            time.sleep(0.05)
        again = web3.eth.get_transaction_receipt(receipt.transactionHash)
        assert again.blockHash == receipt.blockHash, "it has moved"


def logs():
    created = wait(web3.eth.contract(abi=ABI, bytecode=INIT).constructor().transact())
    for _ in range(5):
        assert isinstance(web3.eth.get_logs({"address": created.contractAddress}), list)


def batch():
    with web3.batch_requests() as many:
        for _ in range(150):
            many.add(web3.eth.get_balance(to))
        assert len(many.execute()) == 150


class Proxy:
    """Something in between that can break connections."""

    async def start(self):
        host, port = url.removeprefix("http://").rstrip("/").split(":")
        self.writers = set()

        async def pump(reader, writer):
            self.writers.add(writer)
            try:
                while data := await reader.read(65536):
                    writer.write(data)
                    await writer.drain()
            except OSError:
                pass
            writer.close()
            self.writers.discard(writer)

        async def serve(reader, writer):
            far_reader, far_writer = await asyncio.open_connection(host, int(port))
            await asyncio.gather(pump(reader, far_writer), pump(far_reader, writer))

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        return f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"

    def drop(self):
        for writer in list(self.writers):
            writer.transport.abort()


def reconnect():
    async def watch():
        proxy = Proxy()
        at = await proxy.start()
        connections = 0
        # Its own way: each turn of the loop is another connection.
        async for socket in AsyncWeb3(WebSocketProvider(at)):
            connections += 1
            try:
                await socket.eth.subscribe("newHeads")
                async for _ in socket.socket.process_subscriptions():
                    if connections > 1:
                        return
                    proxy.drop()
            except Exception:  # noqa: BLE001 (the library has many for a lost connection)
                assert connections < 20
                await asyncio.sleep(0.1)

    async def limited():
        await asyncio.wait_for(watch(), LIMIT)

    asyncio.run(limited())


for row, act in {
    "10 sends, each after the last one's receipt": one_after_another,
    "10 sends at once, then their receipts": at_once,
    "5 deployments, each read after its receipt": deployments,
    "3 sends with 2 confirmations": confirmations,
    "getLogs without a range": logs,
    "a batch of 150": batch,
    "heads after a broken WebSocket": reconnect,
    "a contract, created and read": None,
    "a script of 20 transactions": None,
}.items():
    try:
        if act:
            act()
        said = "ok" if act else None
    except Exception as error:  # noqa: BLE001
        said = " ".join(f"{type(error).__name__}: {error}".split())[:200]
    print(json.dumps({"row": row, "said": said}), flush=True)
