"""Blocks of Prague, Osaka and the two forks of blob parameters after it, made and checked by
Ethereum's executable specification, in the form of ethereum/tests' BlockchainTests.

The specification is no dependency of the tests: they read what this has written.

    python3 -m venv v && v/bin/pip install ethereum-execution==2.20.0
    v/bin/python vectors.py > blocks.json
"""
import importlib
import json
import sys

from coincurve import PrivateKey
from ethereum.crypto.hash import keccak256
from ethereum_rlp import rlp
from ethereum_types.bytes import Bytes, Bytes0, Bytes8, Bytes20, Bytes32, Bytes256
from ethereum_types.numeric import U8, U64, U256, Uint

KEYS = [bytes([0] * 31 + [i + 1]) for i in range(4)]
GWEI = 10**9
FUNDS = 10**24
GAS_LIMIT = 60_000_000
CAP = 2**24

# The system contracts, as EIP-4788, 2935, 7002 and 7251 give them.
SYSTEM = {
    "000f3df6d732807ef1319fb7b8bb8522d0beac02": "@4788",
    "0000f90827f1c53a10cb7a02335b175320002935": "@2935",
    "00000961ef480eb55e80d19ad83579a64c007002": "@7002",
    "0000bbddc7ce488642fb579f8b00f3a590007251": "@7251",
}
DEPOSITS = "00000000219ab540356cbb839cbe05303d7705fa"
TOPIC = "649bbc62d0e31342afea4e5cd82d4049e7e1ee912fc0889aa790803be39038c5"
# Calls the address of word 0 with the gas of word 1 and the rest of its call data, and stores what
# came of it and how much gas it took.
PROBE = "c1" * 20
PROBE_CODE = (
    "604036038060405f37"  # CALLDATACOPY(0, 64, size)
    "805f20"  # key = KECCAK256(0, size)
    "5a60405f845f5f35602035fa"  # STATICCALL(gas, address, 0, size, 0, 64)
    "5a8203"  # the gas that it took
    "60011b01"  # times two, plus whether it succeeded
    "8255"  # SSTORE(key, …)
    "3d5f5118"  # the first word of the answer, and its length
    "8260010155"  # SSTORE(key + 1, …)
    "00"
)
# What instructions say of the block, at slots of its number.
ENV = "c2" * 20
ENV_CODE = "".join(
    f"{op}4360100260{i:02x}0155"
    for i, op in enumerate(["4a", "48", "44", "5f49", "42", "6001430340", "47", "45", "46"])
) + "00"
# CLZ of some numbers (EIP-7939).
CLZ = "c3" * 20
CLZ_CODE = "".join(
    f"7f{value:064x}1e60{i:02x}55" for i, value in enumerate([0, 1, 2**255, 2**128 - 1, 0xff00])
) + "00"
# Emits its call data as the deposit contract would.
DEPOSIT_CODE = f"365f5f377f{TOPIC}365fa100"
P256 = (
    "4cee90eb86eaa050036147a12d49004b6b9c72bd725d39d4785011fe190f0b4d"
    "a73bd4903f0ce3b639bbbf6e8e80d16931ff4bcf5993d58468e8fb19086e8cac"
    "36dbcd03009df8c59286b162af3bd7fcc0450c9aa81be5d10d312af6c66b1d60"
    "4aebd3099c618202fcfe16ae7770b0c49ab5eadf74b754204a3bb6060e44eff3"
    "7618b065f9832de4ca6ca971a7a1adc826d0f7c00181a5fb2ddf79ae00b4e10e"
)


def address_of(key):
    public = PrivateKey(key).public_key.format(compressed=False)[1:]
    return keccak256(public)[12:]


class Fork:
    """The modules of one fork of the specification."""

    def __init__(self, name):
        self.name = name
        of = lambda part: importlib.import_module(f"ethereum.forks.{name}{part}")
        self.fork, self.blocks, self.state = of(".fork"), of(".blocks"), of(".state")
        self.tx, self.types, self.vm = of(".transactions"), of(".fork_types"), of(".vm")
        self.gas, self.bloom, self.trie = of(".vm.gas"), of(".bloom"), of(".trie")
        self.requests = of(".requests")


class Chain:
    def __init__(self, first, then=None):
        self.first, self.then = first, then
        self.f = first
        self.alloc = {bytes.fromhex(a): bytes.fromhex(CODES[c[1:]]) for a, c in SYSTEM.items()}
        for address, code in (
            (PROBE, PROBE_CODE), (ENV, ENV_CODE), (CLZ, CLZ_CODE), (DEPOSITS, DEPOSIT_CODE)
        ):
            self.alloc[bytes.fromhex(address)] = bytes.fromhex(code)
        state = first.state.State()
        for address, code in self.alloc.items():
            account = first.types.Account(nonce=Uint(1), balance=U256(0), code=Bytes(code))
            first.state.set_account(state, Bytes20(address), account)
        for key in KEYS:
            account = first.types.Account(nonce=Uint(0), balance=U256(FUNDS), code=Bytes(b""))
            first.state.set_account(state, Bytes20(address_of(key)), account)
        self.pre = dump(state)
        empty = first.trie.root(first.trie.Trie(secured=False, default=None))
        header = first.blocks.Header(
            parent_hash=Bytes32(b"\0" * 32),
            ommers_hash=first.fork.EMPTY_OMMER_HASH,
            coinbase=Bytes20(b"\0" * 20),
            state_root=first.state.state_root(state),
            transactions_root=empty,
            receipt_root=empty,
            bloom=Bytes256(b"\0" * 256),
            difficulty=Uint(0),
            number=Uint(0),
            gas_limit=Uint(GAS_LIMIT),
            gas_used=Uint(0),
            timestamp=U256(14_976),
            extra_data=Bytes(b""),
            prev_randao=Bytes32(b"\0" * 32),
            nonce=Bytes8(b"\0" * 8),
            base_fee_per_gas=Uint(GWEI),
            withdrawals_root=empty,
            blob_gas_used=U64(0),
            excess_blob_gas=U64(0),
            parent_beacon_block_root=Bytes32(b"\0" * 32),
            requests_hash=first.requests.compute_requests_hash([]),
        )
        genesis = first.blocks.Block(header=header, transactions=(), ommers=(), withdrawals=())
        self.genesis = genesis
        self.chain = first.fork.BlockChain(blocks=[genesis], state=state, chain_id=U64(1))
        self.nonces = [0] * len(KEYS)
        self.out = []

    def enter(self, time):
        """Goes over to the second fork, if it is time."""
        if self.then is None or self.f is self.then or time < 15_000:
            return
        old, new = self.f, self.then
        self.f = new
        state = clone(new, self.chain.state)
        blocks = []
        for block in self.chain.blocks:
            fields = {k: getattr(block.header, k) for k in block.header.__dataclass_fields__}
            header = new.blocks.Header(**fields)
            blocks.append(new.blocks.Block(header, block.transactions, (), ()))
        self.chain = new.fork.BlockChain(blocks=blocks, state=state, chain_id=U64(1))

    # Transactions. `who` signs.
    def signed(self, who, tx, hash_of, **fields):
        nonce = self.nonces[who]
        self.nonces[who] += 1
        fields["nonce"] = (U64 if "authorizations" in fields else U256)(nonce)
        unsigned = tx(**fields, y_parity=U256(0), r=U256(0), s=U256(0))
        signature = PrivateKey(KEYS[who]).sign_recoverable(hash_of(unsigned), hasher=None)
        values = dict(
            r=U256.from_be_bytes(signature[:32]), s=U256.from_be_bytes(signature[32:64]),
            y_parity=U256(signature[64]),
        )
        return self.f.tx.encode_transaction(tx(**fields, **values))

    def common(self, to, data, gas, value):
        return dict(
            chain_id=U64(1), max_priority_fee_per_gas=Uint(GWEI), max_fee_per_gas=Uint(100 * GWEI),
            gas=Uint(gas), to=Bytes20(to) if to else Bytes0(b""), value=U256(value),
            data=Bytes(data), access_list=(),
        )

    def call(self, who, to, data=b"", gas=1_000_000, value=0):
        kind = self.f.tx.FeeMarketTransaction
        fields = self.common(to, data, gas, value)
        return self.signed(who, kind, self.f.tx.signing_hash_1559, **fields)

    def blobs(self, who, count, to=bytes.fromhex(ENV)):
        hashes = tuple(Bytes32(b"\1" + bytes([i]) * 31) for i in range(count))
        fields = dict(
            self.common(to, b"", 1_000_000, 0),
            max_fee_per_blob_gas=U256(10**15), blob_versioned_hashes=hashes,
        )
        kind = self.f.tx.BlobTransaction
        return self.signed(who, kind, self.f.tx.signing_hash_4844, **fields)

    def set_code(self, who, authorizations, to):
        made = []
        for key, chain_id, target, nonce in authorizations:
            message = b"\x05" + rlp.encode((U256(chain_id), Bytes20(target), U64(nonce)))
            signature = PrivateKey(key).sign_recoverable(keccak256(message), hasher=None)
            made.append(self.f.types.Authorization(
                chain_id=U256(chain_id), address=Bytes20(target), nonce=U64(nonce),
                y_parity=U8(signature[64]),
                r=U256.from_be_bytes(signature[:32]), s=U256.from_be_bytes(signature[32:64]),
            ))
        fields = dict(self.common(to, b"", 1_000_000, 0), authorizations=tuple(made))
        kind = self.f.tx.SetCodeTransaction
        return self.signed(who, kind, self.f.tx.signing_hash_7702, **fields)

    def probe(self, who, precompile, data, gas=5_000_000, limit=10_000_000):
        words = precompile.to_bytes(32, "big") + gas.to_bytes(32, "big")
        return self.call(who, bytes.fromhex(PROBE), words + data, limit)

    # Blocks.
    def block(self, make, withdrawals=(), refused=None, without=()):
        """A block of the transactions that `make` gives. `refused`: the rule that it breaks, which
        the specification is told not to check (`without`: module, name, value) while it makes the
        block, so that nothing else is wrong."""
        parent = self.chain.blocks[-1].header
        time = int(parent.timestamp) + 12
        self.enter(time)
        f = self.f
        parent = self.chain.blocks[-1].header
        nonces, kept = list(self.nonces), {}
        transactions = tuple(make(self))
        for module, name, value in without:
            kept[module, name] = getattr(module, name)
            setattr(module, name, value)
        given = tuple(
            f.blocks.Withdrawal(U64(i), U64(i), Bytes20(bytes([0xd0 + i]) * 20), U256(amount))
            for i, amount in enumerate(withdrawals)
        )
        base_fee = f.fork.calculate_base_fee_per_gas(
            Uint(GAS_LIMIT), parent.gas_limit, parent.gas_used, parent.base_fee_per_gas
        )
        excess = f.gas.calculate_excess_blob_gas(parent)
        state = clone(f, self.chain.state)
        number = Uint(int(parent.number) + 1)
        beacon = keccak256(b"beacon" + bytes([int(number)]))
        randao = keccak256(b"randao" + bytes([int(number)]))
        coinbase = Bytes20(b"\xfe" * 20)
        env = f.vm.BlockEnvironment(
            chain_id=U64(1), state=state, block_gas_limit=Uint(GAS_LIMIT),
            block_hashes=f.fork.get_last_256_block_hashes(self.chain), coinbase=coinbase,
            number=number, base_fee_per_gas=base_fee, time=U256(time), prev_randao=randao,
            excess_blob_gas=excess, parent_beacon_block_root=beacon,
        )
        out = f.fork.apply_body(env, transactions, given)
        header = f.blocks.Header(
            parent_hash=keccak256(rlp.encode(parent)),
            ommers_hash=f.fork.EMPTY_OMMER_HASH,
            coinbase=coinbase,
            state_root=f.state.state_root(state),
            transactions_root=f.trie.root(out.transactions_trie),
            receipt_root=f.trie.root(out.receipts_trie),
            bloom=f.bloom.logs_bloom(out.block_logs),
            difficulty=Uint(0),
            number=number,
            gas_limit=Uint(GAS_LIMIT),
            gas_used=out.block_gas_used,
            timestamp=U256(time),
            extra_data=Bytes(b""),
            prev_randao=randao,
            nonce=Bytes8(b"\0" * 8),
            base_fee_per_gas=base_fee,
            withdrawals_root=f.trie.root(out.withdrawals_trie),
            blob_gas_used=out.blob_gas_used,
            excess_blob_gas=excess,
            parent_beacon_block_root=beacon,
            requests_hash=f.requests.compute_requests_hash(out.requests),
        )
        block = f.blocks.Block(header, transactions, (), given)
        for (module, name), value in kept.items():
            setattr(module, name, value)
        entry = {"rlp": "0x" + rlp.encode(block).hex()}
        if refused is None:
            f.fork.state_transition(self.chain, block)
            entry["blockHeader"] = told(header)
        else:
            state = clone(f, self.chain.state)
            chain = f.fork.BlockChain(list(self.chain.blocks), state, U64(1))
            try:
                f.fork.state_transition(chain, block)
            except Exception as error:
                # What the specification says, not only that something failed.
                entry["expectException"] = f"{refused}: {type(error).__name__}"
            else:
                raise SystemExit(f"{f.name}: the specification takes: {refused}")
            self.nonces = nonces
        self.out.append(entry)

    def test(self, network):
        last = self.chain.blocks[-1].header
        return {
            "network": network,
            "genesisBlockHeader": told(self.genesis.header),
            "pre": self.pre,
            "blocks": self.out,
            "postState": dump(self.chain.state),
            "lastblockhash": "0x" + keccak256(rlp.encode(last)).hex(),
        }


def clone(fork, state):
    """The state, as a fork has it."""
    new = fork.state.State()
    for address, account in state._main_trie._data.items():
        if account is not None:
            fresh = fork.types.Account(account.nonce, account.balance, account.code)
            fork.state.set_account(new, address, fresh)
    for address, slots in state._storage_tries.items():
        for slot, value in slots._data.items():
            fork.state.set_storage(new, address, slot, value)
    return new


def dump(state):
    accounts = {}
    for address, account in state._main_trie._data.items():
        if account is None:
            continue
        slots = state._storage_tries.get(address)
        accounts["0x" + address.hex()] = {
            "nonce": hex(int(account.nonce)),
            "balance": hex(int(account.balance)),
            "code": "0x" + account.code.hex(),
            "storage": {
                "0x" + slot.hex(): hex(int(value))
                for slot, value in (slots._data.items() if slots else ())
            },
        }
    return accounts


def told(header):
    h = lambda value: hex(int(value))
    b = lambda value: "0x" + bytes(value).hex()
    return {
        "hash": b(keccak256(rlp.encode(header))),
        "parentHash": b(header.parent_hash),
        "uncleHash": b(header.ommers_hash),
        "coinbase": b(header.coinbase),
        "stateRoot": b(header.state_root),
        "transactionsTrie": b(header.transactions_root),
        "receiptTrie": b(header.receipt_root),
        "bloom": b(header.bloom),
        "difficulty": h(header.difficulty),
        "number": h(header.number),
        "gasLimit": h(header.gas_limit),
        "gasUsed": h(header.gas_used),
        "timestamp": h(header.timestamp),
        "extraData": b(header.extra_data),
        "mixHash": b(header.prev_randao),
        "nonce": b(header.nonce),
        "baseFeePerGas": h(header.base_fee_per_gas),
        "withdrawalsRoot": b(header.withdrawals_root),
        "blobGasUsed": h(header.blob_gas_used),
        "excessBlobGas": h(header.excess_blob_gas),
        "parentBeaconBlockRoot": b(header.parent_beacon_block_root),
        "requestsHash": b(header.requests_hash),
    }


def deposit_event():
    word = lambda n: n.to_bytes(32, "big")
    padded = lambda data: word(len(data)) + data + b"\0" * (-len(data) % 32)
    parts = [b"\x11" * 48, b"\x22" * 32, (32 * 10**9).to_bytes(8, "little"), b"\x33" * 96, b"\x07" + b"\0" * 7]
    head, tail, at = b"", b"", 160
    for part in parts:
        head += word(at)
        tail += padded(part)
        at += len(padded(part))
    return head + tail


def modexp(base, exponent, modulus):
    lengths = b"".join(len(x).to_bytes(32, "big") for x in (base, exponent, modulus))
    return lengths + base + exponent + modulus


def requests(c):
    """Transactions that make requests of all three kinds."""
    pubkey = b"\x44" * 48
    yield c.call(0, bytes.fromhex(DEPOSITS), deposit_event())
    yield c.call(0, bytes.fromhex("00000961ef480eb55e80d19ad83579a64c007002"), pubkey + (5).to_bytes(8, "big"), value=1)
    yield c.call(0, bytes.fromhex("0000bbddc7ce488642fb579f8b00f3a590007251"), pubkey + b"\x55" * 48, value=1)
    yield c.call(1, bytes.fromhex(ENV))


def delegations(c):
    authority = KEYS[3]
    env = bytes.fromhex(ENV)
    yield c.set_code(0, [(authority, 1, env, 0), (authority, 1, bytes.fromhex(CLZ), 7), (authority, 2, env, 1)], address_of(authority))
    yield c.call(1, address_of(authority))
    # Its own call counts as one of its nonces.
    yield c.set_code(0, [(authority, 0, b"\0" * 20, 1)], address_of(authority))


def precompiles(c):
    zeros = bytes
    for address, length in [(0x0b, 256), (0x0c, 160), (0x0d, 512), (0x0e, 288), (0x0f, 384), (0x10, 64), (0x11, 128), (0x0b, 255)]:
        yield c.probe(0, address, zeros(length))
    for data in [
        b"", modexp(b"\3", b"\5", b"\7"), modexp(b"\3" * 32, b"\xff" * 32, b"\7" * 32),
        modexp(b"\3" * 64, b"\xff" * 33, b"\7" * 64), modexp(b"\3" * 1024, b"\3", b"\7" * 1024),
        modexp(b"\3" * 1025, b"\3", b"\7"), modexp(b"\3", b"\3" * 1025, b"\7"),
        modexp(b"\3", b"\3", b"\7" * 1025), modexp(b"\1", b"", b"\2"), modexp(b"", b"\1", b""),
    ]:
        yield c.probe(1, 5, data)
    for gas in (300, 499, 500):
        yield c.probe(1, 5, modexp(b"\2", b"\1", b"\3" + bytes([gas % 251])), gas)
    p256 = bytes.fromhex(P256)
    for data, gas in [(p256, 6_900), (p256, 6_899), (p256[:-1] + b"\0", 10_000), (p256 + b"\0", 10_000), (b"", 10_000)]:
        yield c.probe(2, 0x100, data + b"", gas)
    yield c.call(2, bytes.fromhex(CLZ))


def floors(c):
    # EIP-7623: the floor is more than what is executed.
    yield c.call(0, b"\xaa" * 20, b"\1" * 3_000, 141_000)
    yield c.call(0, b"\xaa" * 20, b"\0" * 3_000 + b"\1" * 10, 60_000)
    yield c.call(0, bytes.fromhex(ENV), b"\1" * 500, 400_000)


def full_of_blobs(most, each):
    def make(c):
        left, who = most, 0
        while left:
            count = min(left, each)
            yield c.blobs(who, count)
            left, who = left - count, (who + 1) % 3
    return make


MOST = {"prague": 9, "osaka": 9, "bpo1": 15, "bpo2": 21}


def blocks(c, name):
    most = MOST[name]
    each = 9 if name == "prague" else 6
    c.block(requests, withdrawals=(7, 10**9))
    c.block(delegations)
    c.block(precompiles)
    c.block(floors)
    for _ in range(3):
        c.block(full_of_blobs(most, each))
    c.block(full_of_blobs(1, each))
    f = c.f
    gas_of = int(f.gas.GAS_PER_BLOB)
    more = [(f.fork, "MAX_BLOB_GAS_PER_BLOCK", U64(gas_of * 100))]
    c.block(full_of_blobs(most + 1, each), refused="more blobs than a block may have", without=more)
    floor = lambda c: [c.call(0, b"\xaa" * 20, b"\1" * 3_000, 140_999)]
    cost = f.tx.calculate_intrinsic_cost
    lenient = lambda tx: (cost(tx)[0], Uint(0))
    c.block(floor, refused="less gas than the floor of its data", without=[(f.tx, "calculate_intrinsic_cost", lenient)])
    if name == "prague":
        c.block(lambda c: [c.call(0, bytes.fromhex(ENV), gas=CAP + 1)])
    else:
        c.block(lambda c: [c.call(0, bytes.fromhex(ENV), gas=CAP)])
        c.block(
            lambda c: [c.call(0, bytes.fromhex(ENV), gas=CAP + 1)],
            refused="more gas than a transaction may have",
            without=[(f.tx, "TX_MAX_GAS_LIMIT", Uint(2**30))],
        )
        c.block(
            lambda c: [c.blobs(0, 7)], refused="more blobs than a transaction may have",
            without=[(f.fork, "BLOB_COUNT_LIMIT", 100)],
        )
    c.block(lambda c: [c.call(0, bytes.fromhex(ENV))])


def transition(c, before, after):
    each = 9 if before == "prague" else 6
    after_each = 6
    c.block(full_of_blobs(MOST[before], each))
    c.block(full_of_blobs(MOST[after], after_each))
    c.block(full_of_blobs(MOST[after], after_each))
    c.block(precompiles)
    c.block(requests)


def main():
    tests = {}
    names = {"prague": "Prague", "osaka": "Osaka", "bpo1": "BPO1", "bpo2": "BPO2"}
    forks = {name: Fork(name) for name in names}
    for name, network in names.items():
        chain = Chain(forks[name])
        blocks(chain, name)
        tests[f"{name}"] = chain.test(network)
    for before, after in [("prague", "osaka"), ("osaka", "bpo1"), ("bpo1", "bpo2")]:
        chain = Chain(forks[before], forks[after])
        transition(chain, before, after)
        network = f"{names[before]}To{names[after]}AtTime15k"
        tests[f"{before}_to_{after}"] = chain.test(network)
    json.dump(tests, sys.stdout, indent=None, separators=(",", ":"), sort_keys=True)


CODES = {
    "4788": (
        "3373fffffffffffffffffffffffffffffffffffffffe14604d57602036146024575f5ffd5b5f3580"
        "1560495762001fff810690815414603c575f5ffd5b62001fff01545f5260205ff35b5f5ffd5b6200"
        "1fff42064281555f359062001fff015500"
    ),
    "2935": (
        "3373fffffffffffffffffffffffffffffffffffffffe14604657602036036042575f356001430381"
        "11604257611fff81430311604257611fff9006545f5260205ff35b5f5ffd5b5f35611fff60014303"
        "065500"
    ),
    "7002": (
        "3373fffffffffffffffffffffffffffffffffffffffe1460cb5760115f54807fffffffffffffffff"
        "ffffffffffffffffffffffffffffffffffffffffffffffff146101f457600182026001905f5b5f82"
        "111560685781019083028483029004916001019190604d565b909390049250505036603814608857"
        "366101f457346101f4575f5260205ff35b34106101f4576001546001016001556003548060030260"
        "04013381556001015f35815560010160203590553360601b5f5260385f601437604c5fa060010160"
        "0355005b6003546002548082038060101160df575060105b5f5b8181146101835782810160030260"
        "040181604c02815460601b8152601401816001015481526020019060020154807fffffffffffffff"
        "ffffffffffffffffff00000000000000000000000000000000168252906010019060401c90816038"
        "1c81600701538160301c81600601538160281c81600501538160201c81600401538160181c816003"
        "01538160101c81600201538160081c81600101535360010160e1565b910180921461019557906002"
        "556101a0565b90505f6002555f6003555b5f54807fffffffffffffffffffffffffffffffffffffff"
        "ffffffffffffffffffffffffff14156101cd57505f5b6001546002828201116101e25750505f6101"
        "e8565b01600290035b5f555f600155604c025ff35b5f5ffd"
    ),
    "7251": (
        "3373fffffffffffffffffffffffffffffffffffffffe1460d35760115f54807fffffffffffffffff"
        "ffffffffffffffffffffffffffffffffffffffffffffffff1461019a57600182026001905f5b5f82"
        "111560685781019083028483029004916001019190604d565b909390049250505036606014608857"
        "3661019a573461019a575f5260205ff35b341061019a576001546001016001556003548060040260"
        "04013381556001015f358155600101602035815560010160403590553360601b5f5260605f601437"
        "60745fa0600101600355005b6003546002548082038060021160e7575060025b5f5b818114610129"
        "5782810160040260040181607402815460601b815260140181600101548152602001816002015481"
        "526020019060030154905260010160e9565b910180921461013b5790600255610146565b90505f60"
        "02555f6003555b5f54807fffffffffffffffffffffffffffffffffffffffffffffffffffffffffff"
        "ffffff141561017357505f5b6001546001828201116101885750505f61018e565b01600190035b5f"
        "555f6001556074025ff35b5f5ffd0000"
    ),
}

main()
