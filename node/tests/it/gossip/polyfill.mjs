// js-libp2p wants Node.js 22; what it lacks in 20 is this.
Promise.withResolvers ??= () => {
  let resolve, reject
  const promise = new Promise((yes, no) => { [resolve, reject] = [yes, no] })
  return { promise, resolve, reject }
}
