//! Federation: this server as a member of a mesh of servers.
//!
//! Owns: its flags, and what they must not permit. Must not: hold logic of the mesh; the replica does.
//! Next: `main.rs`, the replica crate's `mesh.rs`; docs/gossip.md, "Servers that federate".

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use syncline_gossip::MeshKey;
use syncline_replica::{Credentials, DialOptions, Mesh, MeshOptions, Replica, ServerUrl};

/// The mesh of servers that hold no key.
const OPEN_MESH: &str = "syncline servers";

/// The flags of federation.
#[derive(Debug, Args)]
#[command(next_help_heading = "Federation")]
pub(crate) struct Federation {
    /// Address of another server (ws://host:port) to keep every document in step with; may be repeated. Both servers need
    /// this flag, or --mesh-key-file
    #[arg(long = "federate", env = "SYNCLINE_FEDERATE", value_delimiter = ',')]
    servers: Vec<ServerUrl>,

    /// File with the key that federating servers share, 64 hexadecimal digits: who does not hold it is no member. Needed
    /// where access is by token
    #[arg(long, env = "SYNCLINE_MESH_KEY_FILE")]
    mesh_key_file: Option<PathBuf>,

    /// Address at which the others reach this server, if not the one it listens on
    #[arg(long, env = "SYNCLINE_ADVERTISE")]
    advertise: Option<ServerUrl>,

    /// File with the token that this server shows to the others, where their access is by token
    #[arg(long, env = "SYNCLINE_FEDERATE_TOKEN_FILE")]
    federate_token_file: Option<PathBuf>,
}

impl Federation {
    fn is_wanted(&self) -> bool {
        !self.servers.is_empty() || self.mesh_key_file.is_some()
    }

    /// How to take part, if the flags say so. `restricted`: access to this server is by token.
    pub(crate) fn options(&self, restricted: bool) -> anyhow::Result<Option<MeshOptions>> {
        if !self.is_wanted() {
            return Ok(None);
        }
        let key = match &self.mesh_key_file {
            Some(file) => {
                let text = read(file)?;
                text.parse().with_context(|| format!("{} has no key", file.display()))?
            }
            // A member reads everything: without a key, whoever has a token for something would be one.
            None if restricted => anyhow::bail!("--federate needs --mesh-key-file where access is by token"),
            None => MeshKey::open(OPEN_MESH),
        };
        let credentials = match &self.federate_token_file {
            Some(file) => {
                read(file)?;
                let file = file.clone();
                // Read again before each try, so that a token can be renewed.
                Some(Credentials::new(move || std::future::ready(read(&file).map(|token| token.trim().to_owned()))))
            }
            None => None,
        };
        let dial = DialOptions { credentials, ..DialOptions::default() };
        let peers = self.servers.clone();
        Ok(Some(MeshOptions { peers, dial, ..MeshOptions::new(key) }))
    }

    /// Takes part, as a server that listens here.
    pub(crate) async fn join(
        &self,
        replica: &Replica,
        address: SocketAddr,
        options: MeshOptions,
    ) -> anyhow::Result<Mesh> {
        let listening = format!("ws://{address}").parse::<ServerUrl>()?;
        let reachable = self.advertise.clone().or_else(|| (!address.ip().is_unspecified()).then_some(listening));
        let advertise = reachable.into_iter().collect();
        Ok(replica.join_mesh(MeshOptions { advertise, ..options }).await?)
    }

    /// What the operator is told.
    pub(crate) fn words(&self) -> String {
        let key = if self.mesh_key_file.is_some() { "with a key" } else { "open: every server that asks is taken" };
        format!("{} servers given, {key}", self.servers.len())
    }
}

fn read(file: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))
}
