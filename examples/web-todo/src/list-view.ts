// The list on the page: one row for each item, kept while the item is there, so that focus and cursor stay.
//
// Owns: the elements below #items. Must not: change the document but through todo.ts.
// Next: main.ts.
import { next as Automerge } from "@automerge/automerge/slim"
import { type DocHandle, decodeHeads } from "@automerge/automerge-repo/slim"
import type { Person } from "./people"
import { type Item, type List, indexOf, removeItem, tickItem, writeItem } from "./todo"

/** What a row shows beside the item itself. */
export type Around = { waiting: Set<string>; others: Person[] }

type Row = { element: HTMLLIElement; tick: HTMLInputElement; text: HTMLTextAreaElement; writer: HTMLElement }

export class ListView {
  readonly #root = document.querySelector<HTMLUListElement>("#items")!
  readonly #template = document.querySelector<HTMLTemplateElement>("#row")!
  readonly #rows = new Map<string, Row>()
  /** The document's heads as the rows show it. */
  #shown: string[] = []

  constructor(
    private readonly handle: DocHandle<List>,
    private readonly onEditing: (item: string | null) => void,
  ) {}

  render({ waiting, others }: Around): void {
    const doc = this.handle.doc()
    this.#removeAllBut(new Set(doc.items.map(({ id }) => id)))
    doc.items.forEach((item, index) => {
      const row = this.#rows.get(item.id) ?? this.#makeRow(item.id)
      const there = this.#root.children[index]
      // Moving an element costs it its focus, so only those that stand elsewhere are moved.
      if (there !== row.element) this.#root.insertBefore(row.element, there ?? null)
      this.#fill(row, item, doc)
      row.element.classList.toggle("waiting", waiting.has(item.id))
      showWriter(row, others.find(({ editing }) => editing === item.id))
    })
    this.#shown = decodeHeads(this.handle.heads())
  }

  #fill(row: Row, item: Item, doc: List): void {
    row.element.classList.toggle("done", item.done)
    row.tick.checked = item.done
    if (row.text.value === item.text) return
    const edges = row.text === document.activeElement ? this.#edgesAfter(row.text, item.id, doc) : undefined
    setText(row.text, item.text)
    if (edges) row.text.setSelectionRange(...edges)
  }

  /** Where the cursor belongs once others' changes are in the text: at the same letter, not at the same number. */
  #edgesAfter({ selectionStart, selectionEnd }: HTMLTextAreaElement, id: string, doc: List): [number, number] {
    const before = Automerge.view(doc, this.#shown)
    const [from, to] = [before, doc].map((version) => ["items", indexOf(version, id), "text"])
    const move = (edge: number) => Automerge.getCursorPosition(doc, to, Automerge.getCursor(before, from, edge))
    return [move(selectionStart), move(selectionEnd)]
  }

  #makeRow(id: string): Row {
    const element = (this.#template.content.cloneNode(true) as DocumentFragment).querySelector("li")!
    const tick = element.querySelector<HTMLInputElement>("input")!
    const text = element.querySelector("textarea")!
    const writer = element.querySelector<HTMLElement>(".writer")!
    const row = { element, tick, text, writer }
    tick.addEventListener("change", () => this.handle.change((list) => tickItem(list, id, tick.checked)))
    text.addEventListener("input", () => {
      setText(text, text.value)
      this.handle.change((list) => writeItem(list, id, text.value))
    })
    text.addEventListener("focus", () => this.onEditing(id))
    text.addEventListener("blur", () => this.onEditing(null))
    text.addEventListener("keydown", (event) => {
      if (event.isComposing) return
      if (event.key === "Enter") {
        event.preventDefault()
        document.querySelector<HTMLInputElement>("#new-item")!.focus()
      } else if (event.key === "Escape") text.blur()
    })
    element.querySelector(".remove")!.addEventListener("click", () => this.handle.change((list) => removeItem(list, id)))
    this.#rows.set(id, row)
    return row
  }

  #removeAllBut(ids: Set<string>): void {
    for (const [id, { element }] of this.#rows) {
      if (ids.has(id)) continue
      element.remove()
      this.#rows.delete(id)
    }
  }
}

/** Sets the text, and beside it what makes the field as high as its text. */
function setText(field: HTMLTextAreaElement, text: string): void {
  if (field.value !== text) field.value = text
  field.parentElement!.dataset.text = text
}

function showWriter({ element, writer }: Row, person: Person | undefined): void {
  element.classList.toggle("written", person !== undefined)
  writer.textContent = person?.name ?? ""
  if (person) element.style.setProperty("--hue", String(person.hue))
}
