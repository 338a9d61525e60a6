"""A consumer of Flashblocks against a devnet node: the websockets package, unmodified, and what
consumers do with what comes. Arguments: Flashblocks address, HTTP address of the same node."""
import json
import sys
import time
import urllib.request

from websockets.sync.client import connect

door, url = sys.argv[1:3]
ZERO = "0x" + 64 * "0"
BLOCKS = 3


def call(method, *params):
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as response:
        answer = json.load(response)
    assert "error" not in answer, (method, answer)
    return answer["result"]


def sealed(number):
    """The block, once the node has verified it."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        block = call("eth_getBlockByNumber", hex(number), True)
        if block and block["hash"] != ZERO:
            return block
        time.sleep(0.05)
    raise AssertionError(f"block {number} is not sealed")


def follow(socket, kind):
    """Whole blocks: lists of flashblocks from index 0 on."""
    current = None
    while True:
        frame = socket.recv(timeout=60)
        assert isinstance(frame, kind), type(frame)
        flashblock = json.loads(frame)
        if flashblock["index"] == 0:
            if current:
                yield current
            current = [flashblock]
        else:
            assert current, "the first flashblock of all has not index 0"
            current.append(flashblock)


def check(flashblocks):
    number = flashblocks[0]["metadata"]["block_number"]
    block = sealed(number)
    base = flashblocks[0]["base"]
    assert [f["index"] for f in flashblocks] == list(range(len(flashblocks)))
    assert all("base" not in f for f in flashblocks[1:])
    assert {f["payload_id"] for f in flashblocks} == {flashblocks[0]["payload_id"]}
    assert {f["metadata"]["block_number"] for f in flashblocks} == {number}
    for ours, theirs in [
        ("block_number", "number"), ("parent_hash", "parentHash"), ("timestamp", "timestamp"),
        ("gas_limit", "gasLimit"), ("base_fee_per_gas", "baseFeePerGas"),
        ("extra_data", "extraData"), ("fee_recipient", "miner"), ("prev_randao", "mixHash"),
        ("parent_beacon_block_root", "parentBeaconBlockRoot"),
    ]:
        assert base[ours] == block[theirs], (ours, base[ours], block[theirs])

    raw = [tx for f in flashblocks for tx in f["diff"]["transactions"]]
    hashes = [tx["hash"] for tx in block["transactions"]]
    assert raw == [call("eth_getRawTransactionByHash", h) for h in hashes]
    assert [h for f in flashblocks for h in f["metadata"]["receipts"]] == hashes
    gas = [int(f["diff"]["gas_used"], 16) for f in flashblocks]
    assert gas == sorted(gas)
    so_far = 0
    for f in flashblocks:
        for tagged in f["metadata"]["receipts"].values():
            (receipt,) = tagged.values()
            so_far = int(receipt["cumulativeGasUsed"], 16)
        assert so_far == int(f["diff"]["gas_used"], 16)

    last = flashblocks[-1]["diff"]
    for ours, theirs in [
        ("gas_used", "gasUsed"), ("receipts_root", "receiptsRoot"), ("logs_bloom", "logsBloom"),
    ]:
        assert last[ours] == block[theirs], (ours, last[ours], block[theirs])
    # With the Seal before the next block, as here, the last one has what only the header knows.
    assert (last["state_root"], last["block_hash"]) == (block["stateRoot"], block["hash"])
    assert all(f["diff"]["state_root"] == ZERO for f in flashblocks[:-1])
    balances = {}
    for f in flashblocks:
        balances.update(f["metadata"]["new_account_balances"])
    for address, balance in list(balances.items())[:5]:
        assert call("eth_getBalance", address, hex(number)) == balance, address
    return len(raw)


with connect(door, max_size=None) as socket, connect(door + "/text", max_size=None) as texts:
    blocks, transactions = follow(socket, bytes), 0
    for _ in range(BLOCKS):
        transactions += check(next(blocks))
    assert transactions > 0
    again = next(follow(texts, str))
    check(again)
    # A consumer that comes in mid-block begins with that block's first.
    with connect(door, max_size=None) as late:
        assert json.loads(late.recv(timeout=60))["index"] == 0
print("flashblocks: ok", BLOCKS, "blocks", transactions, "transactions")
