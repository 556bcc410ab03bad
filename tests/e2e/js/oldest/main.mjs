// The driver with the oldest 2.x packages. Next: ../driver.mjs.
import { next as Automerge } from "@automerge/automerge"
import { Repo } from "@automerge/automerge-repo"
import { WebSocketClientAdapter } from "@automerge/automerge-repo-network-websocket"
import { serve } from "../driver.mjs"

serve({ Automerge, Repo, WebSocketClientAdapter })
