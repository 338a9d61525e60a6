// A js-libp2p peer, none of our code, as based-op's op-node is configured: anonymous messages,
// its message ids, its parameters. Run by node/tests/it/gossip.rs.
//
//   node peer.mjs MULTIADDR CHAIN_ID      connects, subscribes to the three topics
//
// Standard output: one JSON object a line: {"ready": peers} once somebody has subscribed,
// {"topic", "data"} for each message, {"published": topic}, {"closed": peer} when the connection
// is gone. Standard input: {"topic", "data"} to publish, {"flood": topic, "count", "size"} to
// publish junk as fast as it goes.

import './polyfill.mjs'
import { createHash, randomBytes } from 'node:crypto'
import { createInterface } from 'node:readline'
import { createLibp2p } from 'libp2p'
import { tcp } from '@libp2p/tcp'
import { noise } from '@chainsafe/libp2p-noise'
import { yamux } from '@chainsafe/libp2p-yamux'
import { identify } from '@libp2p/identify'
import { gossipsub } from '@libp2p/gossipsub'
import { multiaddr } from '@multiformats/multiaddr'

const [address, chain] = process.argv.slice(2)
const say = (object) => process.stdout.write(JSON.stringify(object) + '\n')
const topics = ['envs', 'fragments', 'seals'].map((last) => `/optimism/${chain}/0/${last}`)

// sha256(domain ‖ u64le(len(topic)) ‖ topic ‖ data)[..20]; nothing here is valid snappy.
const msgIdFn = ({ topic, data }) => {
  const length = Buffer.alloc(8)
  length.writeBigUInt64LE(BigInt(Buffer.byteLength(topic)))
  const hash = createHash('sha256')
  for (const part of [Buffer.alloc(4), length, Buffer.from(topic), data]) hash.update(part)
  return new Uint8Array(hash.digest().subarray(0, 20))
}

const node = await createLibp2p({
  transports: [tcp()],
  connectionEncrypters: [noise()],
  streamMuxers: [yamux()],
  services: {
    identify: identify(),
    pubsub: gossipsub({
      globalSignaturePolicy: 'StrictNoSign',
      msgIdFn,
      D: 8,
      Dlo: 6,
      Dhi: 12,
      Dlazy: 6,
      heartbeatInterval: 500,
      floodPublish: false,
      doPX: false,
      fallbackToFloodsub: false,
      allowPublishToZeroTopicPeers: true
    })
  }
})

const pubsub = node.services.pubsub
pubsub.addEventListener('message', ({ detail }) => {
  say({ topic: detail.topic, data: Buffer.from(detail.data).toString('hex') })
})
node.addEventListener('peer:disconnect', ({ detail }) => say({ closed: detail.toString() }))
topics.forEach((topic) => pubsub.subscribe(topic))
await node.dial(multiaddr(address))

// In standby nobody subscribes: then the connection alone is all there is to wait for.
const started = Date.now()
while (pubsub.getSubscribers(topics[1]).length === 0 && Date.now() - started < 2000) {
  await new Promise((resolve) => setTimeout(resolve, 20))
}
say({ ready: pubsub.getSubscribers(topics[1]).length })

for await (const line of createInterface({ input: process.stdin })) {
  const order = JSON.parse(line)
  if (order.flood === undefined) {
    await pubsub.publish(order.topic, Buffer.from(order.data, 'hex'))
    say({ published: order.topic })
    continue
  }
  let sent = 0
  for (; sent < order.count && node.getConnections().length > 0; sent++) {
    try {
      await pubsub.publish(order.flood, randomBytes(order.size))
    } catch {
      break
    }
    if (sent % 100 === 99) await new Promise((resolve) => setImmediate(resolve))
  }
  say({ flooded: sent })
}
await node.stop()
