// The way from one window to a server, which can be cut.
//
// Owns: the sockets on both sides. Must not: look into what it carries.
// Next: main.mjs.
import { connect, createServer } from "node:net"

export class Wire {
  #sockets = new Set()
  #whole = true
  #server = createServer((near) => {
    if (!this.#whole) return near.resetAndDestroy()
    const far = connect(this.target)
    for (const [from, to] of [[near, far], [far, near]]) {
      this.#sockets.add(from)
      from.pipe(to)
      from.on("close", () => { this.#sockets.delete(from); to.destroy() })
      // A cut wire breaks both ends; their closing says all there is to say.
      from.on("error", () => {})
    }
  })

  /** `target`: host and port. */
  constructor(target) {
    this.target = target
  }

  /** Listens, and resolves to this end's host and port. */
  open() {
    return new Promise((resolve) => this.#server.listen(0, "127.0.0.1", () => resolve(`127.0.0.1:${this.#server.address().port}`)))
  }

  cut() {
    this.#whole = false
    for (const socket of this.#sockets) socket.resetAndDestroy()
  }

  mend() {
    this.#whole = true
  }
}
