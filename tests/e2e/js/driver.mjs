// A page with automerge-repo in it, driven over its standard streams.
//
// Owns: the repos of one Node process, and the line protocol: one JSON command in, one JSON answer out.
// Must not: know a scenario; the Rust tests speak in scenarios and this file in single steps.
// Next: values.mjs, replay.mjs; ../src/browser.rs is the other end.

import { createHash } from "node:crypto"
import { createInterface } from "node:readline"
import { isDeepStrictEqual } from "node:util"
import { applyOperations, fromTagged, toTagged } from "./values.mjs"
import { replay } from "./replay.mjs"

// What a socket says when its server is killed; a browser reports these as mere connection failures.
const CONNECTION_LOST = /ECONNRESET|EPIPE|ECONNREFUSED|socket hang up|closed before the connection|Unexpected server response|Websocket not ready/

/** Storage that outlives its repo, as a profile outlives its tabs, but not this process. */
class MemoryStorage {
  #entries = new Map()
  async load(key) { return this.#entries.get(JSON.stringify(key)) }
  async save(key, data) { this.#entries.set(JSON.stringify(key), data) }
  async remove(key) { this.#entries.delete(JSON.stringify(key)) }
  async loadRange(prefix) {
    return [...this.#entries].map(([key, data]) => ({ key: JSON.parse(key), data }))
      .filter(({ key }) => prefix.every((part, index) => key[index] === part))
  }
  async removeRange(prefix) {
    for (const { key } of await this.loadRange(prefix)) await this.remove(key)
  }
}

/** One repo with its socket, and what the tests wait for. */
class Page {
  connected = false
  ephemerals = new Map()
  presences = new Map()
  #handles = new Map()

  constructor(packages, storage, { url, peer, gossip = false, retry_ms: retryMs = 250 }) {
    this.packages = packages
    this.adapter = new packages.WebSocketClientAdapter(url, retryMs)
    this.repo = new packages.Repo({
      network: [this.adapter],
      storage,
      enableRemoteHeadsGossiping: gossip,
      ...(peer ? { peerId: peer } : {}),
    })
    this.network = this.repo.networkSubsystem
    this.network.on("peer", () => { this.connected = true })
    this.network.on("peer-disconnected", () => { this.connected = false })
  }

  handle(url) {
    const handle = this.#handles.get(url)
    if (!handle) throw new Error(`this page has not opened ${url}`)
    return handle
  }

  keep(handle) {
    if (!this.#handles.has(handle.url)) {
      this.#handles.set(handle.url, handle)
      this.ephemerals.set(handle.url, [])
      handle.on("ephemeral-message", ({ senderId, message }) => {
        this.ephemerals.get(handle.url).push({ from: senderId, message: toTagged(this.packages.Automerge, message) })
      })
    }
    return handle
  }

  untilConnected(expected, timeoutMs) {
    const events = ["peer", "peer-disconnected"]
    return until(this.network, events, () => this.connected === expected, timeoutMs, () => `connected is ${this.connected}`)
  }
}

/** Resolves when `test` holds, looking again at each of `events`. */
function until(emitter, events, test, timeoutMs = 60_000, describe = () => "") {
  return new Promise((resolve, reject) => {
    const look = () => {
      let value
      try { value = test() } catch (error) { finish(() => reject(error)) }
      if (value) finish(() => resolve(value))
    }
    // A handle that was unavailable tells of its new heads a moment before it calls itself ready.
    const lookAndLookAgain = () => { look(); setImmediate(look) }
    const finish = (settle) => {
      clearTimeout(timer)
      for (const event of events) emitter.off(event, lookAndLookAgain)
      settle()
    }
    const timer = setTimeout(() => finish(() => reject(new Error(`waited ${timeoutMs} ms in vain; ${describe()}`))), timeoutMs)
    for (const event of events) emitter.on(event, lookAndLookAgain)
    look()
  })
}

const sorted = (heads) => JSON.stringify([...heads].sort())
const same = (left, right) => sorted(left) === sorted(right)

/** The commands. Each takes (driver, command) and returns the answer's value. */
const commands = {
  async open({ pages, packages, storages }, { page, storage, wait = true, ...options }) {
    if (storage && !storages.has(storage)) storages.set(storage, new MemoryStorage())
    const opened = new Page(packages, storage && storages.get(storage), options)
    pages.set(page, opened)
    if (wait) await opened.untilConnected(true)
    return true
  },

  create(driver, { page, value }) {
    const { repo, packages } = driver.page(page)
    const handle = driver.page(page).keep(repo.create(fromTagged(packages.Automerge, value)))
    return { url: handle.url, heads: handle.heads() }
  },

  async find(driver, { page, url }) {
    const opened = driver.page(page)
    const handle = await opened.repo.find(url, { allowableStates: ["ready", "unavailable"] }).catch((error) => {
      if (/is unavailable/.test(error.message)) return null
      throw error
    })
    if (!handle) return { state: "unavailable" }
    opened.keep(handle)
    return handle.isReady() ? { state: "ready", heads: handle.heads() } : { state: "unavailable" }
  },

  change(driver, { page, url, operations }) {
    const opened = driver.page(page)
    const handle = opened.handle(url)
    handle.change((doc) => applyOperations(opened.packages.Automerge, doc, operations))
    return { heads: handle.heads() }
  },

  read(driver, { page, url }) {
    const opened = driver.page(page)
    return toTagged(opened.packages.Automerge, opened.handle(url).doc())
  },

  heads(driver, { page, url }) {
    return driver.page(page).handle(url).heads()
  },

  async until_heads(driver, { page, url, heads, timeout_ms: timeoutMs }) {
    const handle = driver.page(page).handle(url)
    const equal = () => handle.isReady() && same(handle.heads(), heads)
    await until(handle, ["heads-changed"], equal, timeoutMs, () => handle.isReady() ? `heads are ${handle.heads()}` : `the document is ${handle.state}`)
    return true
  },

  async until_value(driver, { page, url, path, value, timeout_ms: timeoutMs }) {
    const opened = driver.page(page)
    const handle = opened.handle(url)
    const found = () => handle.isReady() ? toTagged(opened.packages.Automerge, path.reduce((inner, key) => inner?.[key], handle.doc())) : undefined
    await until(handle, ["heads-changed"], () => isDeepStrictEqual(found(), value), timeoutMs, () => `found ${JSON.stringify(found())}`)
    return true
  },

  cursor(driver, { page, url, path, position }) {
    const opened = driver.page(page)
    return opened.packages.Automerge.getCursor(opened.handle(url).doc(), path, position)
  },

  cursor_position(driver, { page, url, path, cursor }) {
    const opened = driver.page(page)
    return opened.packages.Automerge.getCursorPosition(opened.handle(url).doc(), path, cursor)
  },

  mark(driver, { page, url, path, range, name, value }) {
    const opened = driver.page(page)
    const handle = opened.handle(url)
    handle.change((doc) => opened.packages.Automerge.mark(doc, path, range, name, value))
    return { heads: handle.heads() }
  },

  marks(driver, { page, url, path }) {
    const opened = driver.page(page)
    return opened.packages.Automerge.marks(opened.handle(url).doc(), path)
  },

  presence_start(driver, { page, url, state }) {
    const opened = driver.page(page)
    const presence = new opened.packages.Presence({ handle: opened.handle(url) })
    presence.start({ initialState: state })
    opened.presences.set(url, presence)
    return true
  },

  presence_broadcast(driver, { page, url, channel, value }) {
    driver.page(page).presences.get(url).broadcast(channel, value)
    return true
  },

  presence_stop(driver, { page, url }) {
    driver.page(page).presences.get(url).stop()
    return true
  },

  /** Waits until exactly these states are known, whoever's they are. */
  async until_presences(driver, { page, url, states, timeout_ms: timeoutMs }) {
    const presence = driver.page(page).presences.get(url)
    const known = () => Object.values(presence.getPeerStates().value).map((peer) => peer.value)
    const events = ["update", "snapshot", "goodbye", "pruning", "heartbeat"]
    await until(presence, events, () => isDeepStrictEqual(known(), states), timeoutMs, () => `known are ${JSON.stringify(known())}`)
    return true
  },

  broadcast(driver, { page, url, message }) {
    const opened = driver.page(page)
    opened.handle(url).broadcast(fromTagged(opened.packages.Automerge, message))
    return true
  },

  async until_ephemerals(driver, { page, url, count, timeout_ms: timeoutMs }) {
    const opened = driver.page(page)
    const received = opened.ephemerals.get(url)
    await until(opened.handle(url), ["ephemeral-message"], () => received.length >= count, timeoutMs, () => `${received.length} came`)
    return received
  },

  subscribe(driver, { page, storages }) {
    driver.page(page).repo.subscribeToRemotes(storages)
    return true
  },

  async until_remote_heads(driver, { page, url, storage, heads, timeout_ms: timeoutMs }) {
    const handle = driver.page(page).handle(url)
    const known = () => handle.getRemoteHeads(storage)
    await until(handle, ["remote-heads"], () => known() && same(known(), heads), timeoutMs, () => `remote heads are ${known()}`)
    return true
  },

  /** This page's own storage id. */
  async storage(driver, { page }) {
    return (await driver.page(page).repo.storageId()) ?? null
  },

  /** The storage id that the connected server announced. */
  server_storage(driver, { page }) {
    const { repo } = driver.page(page)
    return Object.values(repo.peerMetadataByPeerId).map(({ storageId }) => storageId ?? null)[0] ?? null
  },

  disconnect(driver, { page }) {
    driver.page(page).adapter.disconnect()
    return true
  },

  async connect(driver, { page }) {
    const opened = driver.page(page)
    opened.adapter.connect(opened.network.peerId, opened.adapter.peerMetadata)
    await opened.untilConnected(true)
    return true
  },

  async until_connected(driver, { page, expected = true, timeout_ms: timeoutMs }) {
    await driver.page(page).untilConnected(expected, timeoutMs)
    return true
  },

  async close(driver, { page }) {
    const opened = driver.page(page)
    driver.pages.delete(page)
    await opened.repo.shutdown().catch((error) => {
      // automerge-repo 2.x flushes unavailable documents too and stumbles over them; nothing of them is to be saved.
      if (!/not ready/.test(error.message)) throw error
    })
    return true
  },

  /** A request as a browser makes it; of a long body, what tells it from others. */
  async fetch(driver, { url, options }) {
    const response = await fetch(url, options)
    const body = new Uint8Array(await response.arrayBuffer())
    const sha256 = createHash("sha256").update(body).digest("hex")
    const text = body.length <= 1024 ? new TextDecoder().decode(body) : null
    return { status: response.status, headers: Object.fromEntries(response.headers), length: body.length, sha256, text }
  },

  replay(driver, { page, url, author, trace }) {
    const opened = driver.page(page)
    return replay(opened.packages.Automerge, opened.handle(url), author, trace, (event) => driver.send(event))
  },
}

/** Serves the commands on standard input until it ends. */
export function serve(packages) {
  const driver = {
    packages,
    pages: new Map(),
    storages: new Map(),
    failure: undefined,
    page(name) {
      const page = this.pages.get(name)
      if (!page) throw new Error(`no page named ${name} is open`)
      return page
    },
    send: (line) => process.stdout.write(JSON.stringify(line) + "\n"),
  }
  // automerge-repo logs to the console, and standard output belongs to the protocol.
  console.log = console.warn = console.error
  const onFault = (error) => {
    const text = String(error?.stack ?? error)
    console.error(text)
    if (!CONNECTION_LOST.test(text)) driver.failure ??= text
  }
  process.on("uncaughtException", onFault)
  process.on("unhandledRejection", onFault)
  const lines = createInterface({ input: process.stdin })
  lines.on("line", async (line) => {
    const { id, command, ...rest } = JSON.parse(line)
    try {
      const ok = await commands[command](driver, rest)
      driver.send(driver.failure ? { id, error: `the page crashed: ${driver.failure}` } : { id, ok })
    } catch (error) {
      driver.send({ id, error: String(error?.stack ?? error) })
    }
  })
  lines.on("close", () => process.exit(0))
  driver.send({ event: "started" })
}
