// A shared to-do list on stock automerge-repo.
//
// Owns: bringing the parts together, once for each list that is opened.
// Next: todo.ts (the document), connection.ts and whereabouts.ts (sync status), people.ts (presence).
import wasm from "@automerge/automerge/automerge.wasm?url"
import { type AutomergeUrl, type DocHandle, Repo, initializeWasm, isValidAutomergeUrl } from "@automerge/automerge-repo/slim"
import { IndexedDBStorageAdapter } from "@automerge/automerge-repo-storage-indexeddb"
import { showPeople, wireMenu, wireSettings, wireShare } from "./chrome-view"
import { Connection } from "./connection"
import { ListView } from "./list-view"
import { keepForOffline } from "./offline"
import { People } from "./people"
import { type Settings, knownLists, loadSettings, rememberList } from "./settings"
import { describe, describeSearch, showStatus } from "./status-view"
import "./style.css"
import { type List, addItem, emptyList, removeDone, writeTitle } from "./todo"
import { Tracker } from "./whereabouts"

const SEARCH_MS = 1_000

async function start(): Promise<void> {
  const settings = loadSettings()
  // A list of its own page: there is nothing to tear down when another is opened.
  addEventListener("hashchange", () => location.reload())
  wireSettings(settings)
  await initializeWasm(wasm)
  let onConnection = () => {}
  const connection = new Connection(settings, () => onConnection())
  const repo = new Repo({
    network: [connection.adapter],
    storage: new IndexedDBStorageAdapter("syncline-web-todo"),
    enableRemoteHeadsGossiping: true,
  })
  const handle = await openList(repo, connection)
  history.replaceState(null, "", `#${handle.url}`)
  wireMenu(handle.url)
  wireShare()
  onConnection = showList(repo, handle, connection, settings)
  await keepForOffline().catch((error) => console.warn("the page will not open without a network:", error))
}

/** The list in the address, else the one that was open last, else a new one. */
async function openList(repo: Repo, connection: Connection): Promise<DocHandle<List>> {
  const wanted = location.hash.slice(1)
  const url = isValidAutomergeUrl(wanted) ? wanted : wanted === "new" ? undefined : knownLists()[0]?.url
  if (!url) return repo.create(emptyList())
  for (;;) {
    try {
      return await repo.find<List>(url as AutomergeUrl)
    } catch {
      // Nobody has it who can be asked now; who shared it may come back, or the server.
      showStatus(describeSearch(connection.state))
      await new Promise((resolve) => setTimeout(resolve, SEARCH_MS))
    }
  }
}

/** Shows a list and keeps it shown as it is; returns what to call when the connection changes. */
function showList(repo: Repo, handle: DocHandle<List>, connection: Connection, settings: Settings): () => void {
  const title = document.querySelector<HTMLTextAreaElement>("#title")!
  const people = new People(handle, settings, () => draw())
  const tracker = new Tracker(repo, handle, connection, settings, () => draw())
  const view = new ListView(handle, (item) => people.editing(item))

  const draw = () => {
    const doc = handle.doc()
    const where = tracker.now()
    // Of others we know nothing while there is no connection.
    const others = connection.state === "connected" ? people.others() : []
    if (title.value !== doc.title) title.value = doc.title
    document.title = doc.title || "To-do"
    view.render({ waiting: where.waiting, others })
    showProgress(doc)
    showPeople(settings, others)
    showStatus(describe(connection.state, where))
  }

  title.addEventListener("input", () => handle.change((list) => writeTitle(list, title.value.replaceAll("\n", " "))))
  document.querySelector("#remove-done")!.addEventListener("click", () => handle.change(removeDone))
  const newItem = document.querySelector<HTMLInputElement>("#new-item")!
  document.querySelector("#add")!.addEventListener("submit", (event) => {
    event.preventDefault()
    const text = newItem.value.trim()
    newItem.value = ""
    if (text) handle.change((list) => addItem(list, text))
    newItem.focus()
  })
  handle.on("heads-changed", () => {
    rememberList({ url: handle.url, title: handle.doc().title })
    draw()
  })
  rememberList({ url: handle.url, title: handle.doc().title })
  const onConnection = () => {
    if (connection.state === "connected") people.greet()
    draw()
  }
  onConnection()
  document.body.classList.add("ready")
  return onConnection
}

function showProgress({ items }: List): void {
  const done = items.filter((item) => item.done).length
  document.body.classList.toggle("nothing", items.length === 0)
  document.body.classList.toggle("some-done", done > 0)
  document.querySelector("#progress-text")!.textContent = done === items.length ? "All done" : `${done} of ${items.length} done`
  document.querySelector<HTMLElement>("#bar i")!.style.width = `${(100 * done) / Math.max(1, items.length)}%`
}

start().catch((error) => {
  console.error(error)
  showStatus({ tone: "bad", text: `This page cannot work: ${error.message}`, here: "not known", server: "not known", link: "none" })
})
