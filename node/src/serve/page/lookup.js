// Accounts, transactions and blocks, as the node preconfirms them.
const number = (hex) => (hex ? BigInt(hex) : 0n);

const ether = (wei) => {
  const text = wei.toString().padStart(19, '0');
  const rest = text.slice(-18).replace(/0+$/, '');
  return `${text.slice(0, -18)}${rest ? '.' + rest : ''} ether`;
};

const lookUp = async (call, what) => {
  const text = what.trim();
  if (/^0x[0-9a-fA-F]{40}$/.test(text)) {
    const [balance, nonce, code] = await Promise.all(
      ['eth_getBalance', 'eth_getTransactionCount', 'eth_getCode'].map((method) => call(method, [text, 'pending'])));
    return [['account', text], ['balance', ether(number(balance))], ['nonce', number(nonce).toString()],
      ['code', code === '0x' ? 'none' : `${(code.length - 2) / 2} bytes`]];
  }
  const block = async (method, by) => {
    const found = await call(method, [by, false]);
    return found && [['block', number(found.number).toString()], ['hash', found.hash || 'not sealed yet'],
      ['transactions', String(found.transactions.length)], ['gas', number(found.gasUsed).toString()],
      ['time', new Date(Number(number(found.timestamp)) * 1000).toISOString()]];
  };
  if (/^0x[0-9a-fA-F]{64}$/.test(text)) {
    const [tx, receipt] = await Promise.all([call('eth_getTransactionByHash', [text]), call('eth_getTransactionReceipt', [text])]);
    if (!tx) return await block('eth_getBlockByHash', text) || [['not found', 'neither a transaction nor a block here has this hash']];
    const status = !receipt ? 'waits' : receipt.status === '0x1' ? 'succeeded' : 'reverted';
    return [['transaction', text], ['status', status],
      ['block', tx.blockNumber ? number(tx.blockNumber).toString() : 'none yet'],
      ['from', tx.from], ['to', tx.to || (receipt && receipt.contractAddress) || 'a new contract'],
      ['value', ether(number(tx.value))], ['gas used', receipt ? number(receipt.gasUsed).toString() : '–']];
  }
  if (/^\d+$/.test(text)) {
    return await block('eth_getBlockByNumber', '0x' + BigInt(text).toString(16)) || [['not found', 'this block is not here']];
  }
  throw new Error('write an address (20 bytes), a hash (32 bytes) or a number');
};

const showFound = (rows) => {
  const list = byId('found');
  list.replaceChildren(...rows.flatMap(([name, value]) => {
    const [term, of] = [document.createElement('dt'), document.createElement('dd')];
    term.textContent = name;
    of.textContent = value;
    return [term, of];
  }));
};
