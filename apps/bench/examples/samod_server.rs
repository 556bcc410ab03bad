//! A samod server to compare with: samod behind an axum websocket, files as its storage.
//!
//! Owns: the wiring that samod's own documentation shows. Must not: tune samod.
//! Next: ../compare.sh, which starts it beside the others.

use std::net::SocketAddr;
use std::path::PathBuf;

use axum::Router;
use axum::extract::ws::WebSocketUpgrade;
use axum::routing::get;
use axum::serve::ListenerExt;
use clap::Parser;
use samod::storage::TokioFilesystemStorage;
use samod::{Repo, ShareConfig};

#[derive(Debug, Parser)]
struct Cli {
    /// Where to listen.
    #[arg(long)]
    listen: SocketAddr,
    /// Where to store.
    #[arg(long)]
    data: PathBuf,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt().with_env_filter("error").with_writer(std::io::stderr).init();
    let cli = Cli::parse();
    std::fs::create_dir_all(&cli.data)?;
    // A server shares what peers ask for and announces nothing by itself, as the JavaScript one is set up.
    let repo = Repo::build_tokio()
        .with_storage(TokioFilesystemStorage::new(&cli.data))
        .with_share_policy(ShareConfig::read_write().with_announce(false))
        .load()
        .await;
    let acceptor = repo.make_acceptor(url::Url::parse(&format!("ws://{}/", cli.listen))?)?;
    let upgrade = get(move |upgrade: WebSocketUpgrade| {
        let acceptor = acceptor.clone();
        async move {
            upgrade.on_upgrade(move |socket| async move {
                let _ = acceptor.accept_axum(socket, None);
            })
        }
    });
    let listener = tokio::net::TcpListener::bind(cli.listen).await?.tap_io(|stream| {
        let _ = stream.set_nodelay(true);
    });
    axum::serve(listener, Router::new().route("/", upgrade)).await?;
    Ok(())
}
