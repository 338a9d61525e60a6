"""web3.py, unmodified, against a devnet node. Arguments: HTTP address, secret key."""
import sys

from web3 import Web3

url, key = sys.argv[1:3]
web3 = Web3(Web3.HTTPProvider(url))
account = web3.eth.account.from_key(key)
pending = web3.eth.get_block("pending", full_transactions=True)
assert pending.number >= web3.eth.block_number
to = "0x00000000000000000000000000000000000000CC"
to = web3.to_checksum_address(to)
tx = {
    "from": account.address,
    "to": to,
    "value": 7,
    "nonce": web3.eth.get_transaction_count(account.address, "pending"),
    "chainId": web3.eth.chain_id,
    "gas": 21_000,
    "maxFeePerGas": web3.eth.gas_price * 2,
    "maxPriorityFeePerGas": web3.eth.max_priority_fee,
}
assert web3.eth.estimate_gas({"from": account.address, "to": to, "value": 7}) == 21_000
signed = account.sign_transaction(tx)
sent = web3.eth.send_raw_transaction(signed.raw_transaction)
receipt = web3.eth.wait_for_transaction_receipt(sent, timeout=60, poll_latency=0.05)
assert receipt.status == 1 and receipt.transactionHash == sent
assert web3.eth.get_balance(to, "pending") >= 7
token = web3.eth.contract(
    address="0x7070707070707070707070707070707070707070",
    abi=[
        {"type": "event", "name": "Transfer", "anonymous": False, "inputs": [
            {"name": "from", "type": "address", "indexed": True},
            {"name": "to", "type": "address", "indexed": True},
            {"name": "value", "type": "uint256", "indexed": False}]},
    ],
)
# The receipt came with the verified block, which everything else agrees on.
assert web3.eth.block_number >= receipt.blockNumber
assert web3.eth.get_transaction_count(account.address) == tx["nonce"] + 1
head = web3.eth.block_number
logs = token.events.Transfer().get_logs(from_block=max(head - 1, 1), to_block=head)
assert len(logs) > 0 and logs[0].args.value > 0
print("web3.py: ok")
