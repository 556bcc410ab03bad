// Windows of a real Chromium with the example app in them, driven over standard streams.
//
// Owns: the browser, a context and a network for each window, and the line protocol: one JSON command in, one JSON
// answer out. Must not: reach into the app; it clicks, types and reads as a person does.
// Next: wire.mjs, pages.mjs; ../../src/chromium.rs is the other end.
import { createInterface } from "node:readline"
import { chromium } from "playwright-core"
import { servePages } from "./pages.mjs"
import { Wire } from "./wire.mjs"

const PATIENCE_MS = 60_000
const PHONE = { viewport: { width: 390, height: 700 }, isMobile: true, hasTouch: true, colorScheme: "dark" }
const DESKTOP = { viewport: { width: 820, height: 560 }, colorScheme: "light" }
const [executablePath, build] = process.argv.slice(2)

const send = (line) => process.stdout.write(JSON.stringify(line) + "\n")
const pages = await servePages(build)
const browser = await chromium.launch({ executablePath })
const windows = new Map()

/** One person's window: a browser profile of its own, and wires of its own to the pages and to the sync server. */
class Window {
  constructor(page, wires) {
    this.page = page
    this.wires = wires
    page.setDefaultTimeout(PATIENCE_MS)
    page.on("pageerror", (error) => console.error(`the page threw: ${error.stack ?? error}`))
  }

  row(text) {
    return this.page.locator("#items li").filter({ has: this.page.locator(`[data-text=${JSON.stringify(text)}]`) })
  }

  /** Resolves once `read`, run in the page, gives `wanted`; `read` sees nothing of this file. */
  async until(read, wanted) {
    const given = `(${read})()`
    try {
      await this.page.waitForFunction(`JSON.stringify(${given}) === ${JSON.stringify(JSON.stringify(wanted))}`)
    } catch (error) {
      const found = await this.page.evaluate(given)
      throw new Error(`wanted ${JSON.stringify(wanted)}, found ${JSON.stringify(found)}; the page says "${await this.status()}"; ${error.message}`)
    }
  }

  status() {
    return this.page.locator("#status-text").textContent()
  }
}

// Pairs, and not objects: JSON has an order for them.
const readItems = () => Array.from(document.querySelectorAll("#items li"), (row) => [
  row.querySelector("textarea").value,
  row.querySelector("input").checked,
])
const readWaiting = () => Array.from(document.querySelectorAll("#items li.waiting textarea"), (text) => text.value)
const readWriters = () => Array.from(document.querySelectorAll("#items li.written"), (row) => [
  row.querySelector("textarea").value,
  row.querySelector(".writer").textContent,
])
const readPeople = () => document.querySelector("#people").getAttribute("aria-label")
const readStatus = () => document.querySelector("#status-text").textContent

/** The commands. Each takes a window (but for `open`) and the command, and returns the answer's value. */
const commands = {
  /** Opens the app, and enters name, server and token in its settings. */
  async open(_, { page: name, server, token = "", list = "", phone = false }) {
    const wires = [new Wire(pages), new Wire(target(server))]
    const [pagesHost, serverHost] = await Promise.all(wires.map((wire) => wire.open()))
    const context = await browser.newContext(phone ? PHONE : DESKTOP)
    const page = await context.newPage()
    const window = new Window(page, wires)
    windows.set(name, window)
    await page.goto(`http://${pagesHost}/${list}`)
    await page.locator("#status").click()
    await page.getByLabel("Your name").fill(name)
    await page.getByLabel("Sync server").fill(`ws://${serverHost}`)
    await page.getByLabel("Access token").fill(token)
    const loaded = page.waitForEvent("load")
    await page.getByRole("button", { name: "Save" }).click()
    await loaded
    return true
  },

  /** The part of the address that others need. */
  async list({ page }) {
    await page.locator("body.ready").waitFor()
    return new URL(page.url()).hash
  },

  async title({ page }, { text }) {
    await page.getByLabel("Title").fill(text)
    return true
  },

  async add({ page }, { text }) {
    await page.getByLabel("New item").fill(text)
    await page.getByLabel("New item").press("Enter")
    return true
  },

  /** Puts the cursor into an item at this place and types. */
  async type(window, { item, at, text }) {
    const field = window.row(item).locator("textarea")
    await field.focus()
    await field.evaluate((element, place) => element.setSelectionRange(place, place), at)
    await window.page.keyboard.type(text)
    return true
  },

  async focus(window, { item }) {
    await window.row(item).locator("textarea").focus()
    return true
  },

  async tick(window, { item }) {
    await window.row(item).getByLabel("Done").check()
    return true
  },

  async reload({ page }) {
    await page.reload()
    await page.locator("body.ready").waitFor()
    return true
  },

  /** Waits until the page could be opened without a network. */
  async until_kept({ page }) {
    await page.locator("html[data-offline=ready]").waitFor({ state: "attached" })
    return true
  },

  async cut({ wires }) {
    for (const wire of wires) wire.cut()
    return true
  },

  async mend({ wires }) {
    for (const wire of wires) wire.mend()
    return true
  },

  /** The network is there no more, and nothing says so to the sockets. */
  async lose_network({ page }) {
    await page.context().setOffline(true)
    return true
  },

  async find_network({ page }) {
    await page.context().setOffline(false)
    return true
  },

  items: ({ page }) => page.evaluate(readItems),
  until_items: (window, { items }) => window.until(readItems, items),
  until_waiting: (window, { items }) => window.until(readWaiting, items),
  until_writers: (window, { writers }) => window.until(readWriters, writers),
  until_people: (window, { people }) => window.until(readPeople, people),
  until_status: (window, { status }) => window.until(readStatus, status),

  async screenshot({ page }, { file }) {
    await page.screenshot({ path: file, animations: "disabled", caret: "initial" })
    return true
  },

  async quit() {
    await browser.close()
    return true
  },
}

function target(server) {
  const { hostname, port } = new URL(server)
  return { host: hostname, port: Number(port) }
}

createInterface({ input: process.stdin })
  .on("line", async (line) => {
    const { id, command, ...rest } = JSON.parse(line)
    try {
      send({ id, ok: (await commands[command](windows.get(rest.page), rest)) ?? true })
    } catch (error) {
      send({ id, error: String(error?.stack ?? error) })
    }
  })
  .on("close", () => browser.close().finally(() => process.exit(0)))
send({ event: "started" })
