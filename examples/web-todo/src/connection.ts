// The websocket to the sync server: the stock adapter, and whether it has got through.
//
// Owns: the state of the connection, and the server's storage id. Must not: know documents.
// Next: whereabouts.ts; docs/access.md says why a token in an address must be short-lived.
import type { StorageId } from "@automerge/automerge-repo/slim"
import { WebSocketClientAdapter } from "@automerge/automerge-repo-network-websocket"
import type { Settings } from "./settings"

// Longer than a slow handshake takes: the adapter gives up a socket that is not open at the next try.
const RETRY_MS = 3_000
const PROBE_MS = 4_000

/** `refused`: the server answers, but takes no websocket from us. */
export type ConnectionState = "connecting" | "connected" | "offline" | "refused"

export class Connection {
  readonly adapter: WebSocketClientAdapter
  state: ConnectionState = "connecting"
  serverStorage: StorageId | undefined
  #answered = 0
  #left = false

  constructor(
    private readonly settings: Settings,
    private readonly onChange: (state: ConnectionState) => void,
  ) {
    this.adapter = new WebSocketClientAdapter(addressWithToken(settings), RETRY_MS)
    this.adapter.on("peer-candidate", ({ peerMetadata }) => {
      this.serverStorage = peerMetadata.storageId
      this.#become("connected")
    })
    this.adapter.on("peer-disconnected", () => this.#become("offline"))
    addEventListener("offline", () => void this.#leave())
    addEventListener("online", () => this.#comeBack())
    void this.#probe()
    setInterval(() => void this.#probe(), PROBE_MS)
  }

  /** A browser tells a page nothing of why a websocket failed, so this asks whether the server is there at all. */
  async #probe(): Promise<void> {
    if (this.state === "connected") return
    const answers = await this.#answers()
    this.#answered = answers ? this.#answered + 1 : 0
    if (this.#hasJoined()) return
    if (!answers) this.#become("offline")
    // Twice, since a server that has just come back has not been tried yet.
    else if (this.#answered >= 2) this.#become("refused")
  }

  #answers(): Promise<boolean> {
    const request = fetch(healthAddress(this.settings.server), { mode: "no-cors", cache: "no-store" })
    return request.then(() => true, () => false)
  }

  // Asked after a wait, during which the adapter may have got through.
  #hasJoined(): boolean {
    return this.state === "connected"
  }

  /** A socket does not notice for minutes that its network is gone. A server on this machine needs none. */
  async #leave(): Promise<void> {
    if (this.state !== "connected" || (await this.#answers())) return
    this.#left = true
    this.adapter.disconnect()
  }

  #comeBack(): void {
    if (!this.#left) return
    this.#left = false
    this.adapter.connect(this.adapter.peerId!, this.adapter.peerMetadata)
  }

  #become(state: ConnectionState): void {
    if (state === "connected") this.#answered = 0
    if (state === this.state) return
    this.state = state
    this.onChange(state)
  }
}

function addressWithToken({ server, token }: Settings): string {
  const address = new URL(server)
  if (token) address.searchParams.set("access_token", token)
  return address.href
}

function healthAddress(server: string): string {
  const address = new URL("/health", server)
  address.protocol = address.protocol === "wss:" ? "https:" : "http:"
  return address.href
}
