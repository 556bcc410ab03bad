// Fills a directory as a sync server of automerge-repo would: documents with snapshots and with single changes.
// node nodefs.mjs <directory> <documents>; prints [url, value] of each as JSON.
import { Repo } from "@automerge/automerge-repo"
import { NodeFSStorageAdapter } from "@automerge/automerge-repo-storage-nodefs"

const [directory, count] = process.argv.slice(2)
const repo = new Repo({ storage: new NodeFSStorageAdapter(directory) })
const documents = []
for (let n = 0; n < Number(count); n++) {
  const handle = repo.create({ n, text: `document ${n}`, list: [] })
  for (let edit = 0; edit < n % 7; edit++) {
    handle.change((document) => document.list.push(edit))
    // Between two flushes changes are kept one by one.
    await repo.flush([handle.documentId])
  }
  documents.push([handle.url, handle.doc()])
}
await repo.flush()
console.log(JSON.stringify(documents))
process.exit(0)
