// What is around the list: the menu of lists, the settings, sharing, who is here.
//
// Owns: those elements. Must not: touch the document.
// Next: main.ts.
import type { Person } from "./people"
import { type Settings, knownLists, saveSettings } from "./settings"

const FACES_MAX = 5

export function showPeople(me: Settings, others: Person[]): void {
  const faces = [{ ...me, self: true }, ...others.map((other) => ({ ...other, self: false }))]
  const shown = faces.slice(0, FACES_MAX).map(({ name, hue, self }) => {
    const face = document.createElement("span")
    face.className = self ? "face self" : "face"
    face.style.setProperty("--hue", String(hue))
    face.textContent = [...name.trim()].slice(0, 1).join("").toUpperCase()
    face.title = self ? `${name} (you)` : name
    return face
  })
  if (faces.length > FACES_MAX) {
    const more = document.createElement("span")
    more.className = "more"
    more.textContent = `+${faces.length - FACES_MAX}`
    shown.push(more)
  }
  const people = document.querySelector<HTMLElement>("#people")!
  people.replaceChildren(...shown)
  people.setAttribute("aria-label", `Here: ${faces.map(({ name, self }) => (self ? `${name} (you)` : name)).join(", ")}`)
}

export function wireMenu(here: string): void {
  const menu = document.querySelector<HTMLElement>("#menu")!
  menu.addEventListener("beforetoggle", () => {
    const links = knownLists().map(({ url, title }) => {
      const link = document.createElement("a")
      link.href = `#${url}`
      link.textContent = title || "Untitled list"
      if (url === here) link.setAttribute("aria-current", "page")
      const entry = document.createElement("li")
      entry.append(link)
      return entry
    })
    document.querySelector("#lists")!.replaceChildren(...links)
  })
  document.querySelector("#new-list")!.addEventListener("click", () => (location.hash = "new"))
}

export function wireSettings(settings: Settings): void {
  const dialog = document.querySelector<HTMLDialogElement>("#settings")!
  const fields = dialog.querySelector("form")!.elements as HTMLFormControlsCollection & Record<string, HTMLInputElement>
  const open = () => {
    for (const name of ["name", "server", "token"] as const) fields[name].value = settings[name]
    document.querySelector<HTMLElement>("#menu")!.hidePopover()
    dialog.showModal()
  }
  for (const button of ["#open-settings", "#status"]) document.querySelector(button)!.addEventListener("click", open)
  dialog.addEventListener("close", () => {
    if (dialog.returnValue !== "save") return
    const [name, server, token] = ["name", "server", "token"].map((field) => fields[field].value.trim())
    saveSettings({ ...settings, name, server, token })
    location.reload()
  })
}

export function wireShare(): void {
  document.querySelector("#share")!.addEventListener("click", async () => {
    if (navigator.share) {
      // Somebody who closes the share sheet has changed their mind.
      await navigator.share({ url: location.href }).catch(() => undefined)
    } else if (navigator.clipboard) {
      await navigator.clipboard.writeText(location.href)
      say("Link copied. Whoever opens it and may use the server sees this list.")
    } else say("Pass on the address of this page.")
  })
}

let hiding: ReturnType<typeof setTimeout> | undefined

export function say(text: string): void {
  const toast = document.querySelector<HTMLElement>("#toast")!
  toast.textContent = text
  toast.hidden = false
  clearTimeout(hiding)
  hiding = setTimeout(() => (toast.hidden = true), 4_000)
}
