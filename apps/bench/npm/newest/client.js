// A client of automerge-repo that makes documents and shares them. It is told what to do line by line on standard input, and
// answers each line with one of JSON. Arguments: the server's address, a directory, the number of documents.
import readline from "node:readline"
import { Repo } from "@automerge/automerge-repo"
import { WebSocketClientAdapter } from "@automerge/automerge-repo-network-websocket"
import { NodeFSStorageAdapter } from "@automerge/automerge-repo-storage-nodefs"

const [address, directory, documents] = process.argv.slice(2)
const repo = new Repo({ network: [new WebSocketClientAdapter(address)], storage: new NodeFSStorageAdapter(directory) })
const handles = []
for (let number = 0; number < Number(documents); number += 1) {
  handles.push(repo.create({ number }))
}

const say = (value) => process.stdout.write(JSON.stringify(value) + "\n")
say(handles.map((handle) => handle.url))
for await (const line of readline.createInterface({ input: process.stdin })) {
  const { write, read } = JSON.parse(line)
  if (write) write.at.forEach((at) => handles[at].change((doc) => (doc.number = write.number)))
  say(read ? read.map((at) => handles[at].doc().number) : null)
}
process.exit(0)
