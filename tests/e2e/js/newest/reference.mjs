// The well-known sync server in twenty lines, for telling whether a failing test or the server under test is wrong.
// SYNCLINE_E2E_SERVER_COMMAND='node js/newest/reference.mjs {listen} {data}' runs the tests against it.
import { createServer } from "node:http"
import { WebSocketServer } from "ws"
import { Repo } from "@automerge/automerge-repo"
import { WebSocketServerAdapter } from "@automerge/automerge-repo-network-websocket"
import { NodeFSStorageAdapter } from "@automerge/automerge-repo-storage-nodefs"

const [listen, data] = process.argv.slice(2)
const [host, port] = listen.split(":")
const sockets = new WebSocketServer({ noServer: true })
const repo = new Repo({
  network: [new WebSocketServerAdapter(sockets)],
  storage: new NodeFSStorageAdapter(data),
  sharePolicy: async () => false,
  enableRemoteHeadsGossiping: true,
})
const server = createServer((request, response) => response.end(request.url))
server.on("upgrade", (request, socket, head) => sockets.handleUpgrade(request, socket, head, (open) => sockets.emit("connection", open, request)))
server.listen(Number(port), host, () => console.log(`syncline-server listening on ws://${host}:${server.address().port}`))
process.on("SIGTERM", async () => { await repo.flush(); process.exit(0) })
