//! The command line of the server: every flag, its variable and its default.
//!
//! Owns: names, defaults and bounds of flags, and what they set. Must not: do anything.
//! Next: `main.rs`, `token.rs`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, Parser, Subcommand};
use syncline_core::access::Permissions;
use syncline_core::limits::Limits;
use syncline_loader::Processes;
use syncline_replica::Trust;
use syncline_server::access::{CallbackConfig, Rules};
use syncline_server::care::Schedule;
use syncline_server::webhooks::WebhookConfig;
use syncline_server::{Config, Doors, Network, Room, Settings, TlsFiles};
use url::Url;

use crate::care::Care;
use crate::federation::Federation;
use crate::token::TokenCommand;

/// Sync server for offline-first apps: a drop-in peer for automerge-repo that keeps every acknowledged edit.
#[derive(Debug, Parser)]
#[command(name = "syncline-server", version)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,

    /// File with settings (TOML), named as the flags are
    #[arg(long, env = "SYNCLINE_CONFIG", value_name = "FILE", global = true)]
    pub(crate) config: Option<PathBuf>,

    /// Print all settings in force, as such a file, and end
    #[arg(long)]
    pub(crate) print_config: bool,

    /// Address and port to listen on; port 0 takes a free one
    #[arg(long, env = "SYNCLINE_LISTEN", default_value = "127.0.0.1:3030")]
    pub(crate) listen: SocketAddr,

    /// Directory for the data; made if it is not there
    #[arg(long, env = "SYNCLINE_DATA", default_value = "./syncline-data", global = true)]
    pub(crate) data: PathBuf,

    /// Largest message, and so the largest document that can travel, MiB
    #[arg(long, env = "SYNCLINE_MESSAGE_MIB_MAX", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) message_mib_max: u16,

    /// Most documents that one connection may have open
    #[arg(long, env = "SYNCLINE_SESSION_DOCUMENTS_MAX", default_value_t = 10_000)]
    pub(crate) session_documents_max: usize,

    /// How long a deleted document can be restored before its content is removed, days
    #[arg(long, env = "SYNCLINE_DELETED_KEEP_DAYS", default_value_t = 30, value_parser = clap::value_parser!(u32).range(0..=36_500))]
    pub(crate) deleted_keep_days: u32,

    /// Delete documents that nobody has changed for so many days and nobody is connected to; they can be restored like others
    #[arg(long, env = "SYNCLINE_EXPIRE_UNTOUCHED_DAYS", value_parser = clap::value_parser!(u32).range(1..=36_500))]
    pub(crate) expire_untouched_days: Option<u32>,

    /// Most memory that the process may have in which documents from peers are loaded, MiB
    #[arg(long, env = "SYNCLINE_LOAD_MEMORY_MIB_MAX", default_value_t = 4096, global = true, value_parser = clap::value_parser!(u32).range(16..))]
    pub(crate) load_memory_mib_max: u32,

    /// Most processor time that loading one document may take, seconds
    #[arg(long, env = "SYNCLINE_LOAD_SECONDS_MAX", default_value_t = 60, global = true, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) load_seconds_max: u32,

    /// Largest blob (attachment) that is taken, MiB
    #[arg(long, env = "SYNCLINE_BLOB_MIB_MAX", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(0..=1_048_576))]
    pub(crate) blob_mib_max: u32,

    /// Most room that all blobs together may take, MiB
    #[arg(long, env = "SYNCLINE_BLOBS_MIB_MAX", default_value_t = 16 * 1024)]
    pub(crate) blobs_mib_max: u32,

    #[command(flatten)]
    pub(crate) access: AccessArguments,

    #[command(flatten)]
    pub(crate) federation: Federation,

    #[command(flatten)]
    pub(crate) network: NetworkArguments,

    #[command(flatten)]
    pub(crate) bounds: BoundArguments,

    #[command(flatten)]
    pub(crate) webhooks: WebhookArguments,

    #[command(flatten)]
    pub(crate) backups: BackupArguments,

    /// OpenTelemetry collector that gets traces (OTLP over HTTP), such as http://127.0.0.1:4318
    #[cfg(feature = "otlp")]
    #[arg(long, env = "SYNCLINE_OTLP_ENDPOINT", value_name = "URL")]
    pub(crate) otlp_endpoint: Option<Url>,

    /// What to log: error, warn, info, debug or trace, or a filter such as syncline_replica=debug
    #[arg(long, env = "SYNCLINE_LOG", default_value = "info")]
    pub(crate) log: String,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Verify every hash and dependency of the data without changing it; exits with 2 if something is wrong
    Check,
    #[command(flatten)]
    Care(Care),
    /// Make keys for tokens, make tokens, and look into them
    #[command(subcommand)]
    Token(TokenCommand),
    /// Print the manual page
    Man,
    /// Print completions for a shell
    Completions {
        /// Which
        shell: clap_complete::Shell,
    },
    /// Loads documents that come on standard input, within limits: what the server starts, not people
    #[command(name = crate::LOAD_COMMAND, hide = true)]
    Load,
}

/// How connections come in.
#[derive(Debug, Args)]
#[command(next_help_heading = "Network")]
pub(crate) struct NetworkArguments {
    /// File with the certificate with which connections are encrypted, and those that lead to an authority (PEM); read again when it changes
    #[arg(long, env = "SYNCLINE_TLS_CERT", value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,

    /// File with the certificate's private key (PEM)
    #[arg(long, env = "SYNCLINE_TLS_KEY", value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,

    /// Address of a proxy that is believed about the address for which it asks (X-Forwarded-For), such as 10.0.0.0/8; may be repeated
    #[arg(long, env = "SYNCLINE_TRUSTED_PROXY", value_name = "ADDRESS", value_delimiter = ',')]
    trusted_proxy: Vec<Network>,

    /// Most connections in all
    #[arg(long, env = "SYNCLINE_CONNECTIONS_MAX", default_value_t = 50_000)]
    connections_max: usize,

    /// Most connections from one address; without it 1024 from each other machine, and any number from this one
    #[arg(long, env = "SYNCLINE_CONNECTIONS_PER_ADDRESS_MAX")]
    connections_per_address_max: Option<usize>,

    /// Most connections of one subject
    #[arg(long, env = "SYNCLINE_CONNECTIONS_PER_SUBJECT_MAX", default_value_t = 256)]
    connections_per_subject_max: usize,

    /// Longest that a stop waits for peers that take slowly what they are sent, seconds; twice that ends it in any case
    #[arg(long, env = "SYNCLINE_STOP_SECONDS_MAX", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=3_600))]
    stop_seconds_max: u32,
}

/// How much may come, and be kept.
#[derive(Debug, Args)]
#[command(next_help_heading = "Bounds")]
pub(crate) struct BoundArguments {
    /// Most messages a second from one connection, in the long run; what comes faster is read later
    #[arg(long, env = "SYNCLINE_MESSAGES_PER_SECOND_MAX", default_value_t = 5_000, value_parser = clap::value_parser!(u32).range(1..))]
    messages_per_second_max: u32,

    /// Most MiB a second from one connection, in the long run; what comes faster is read later
    #[arg(long, env = "SYNCLINE_MIB_PER_SECOND_MAX", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
    mib_per_second_max: u32,

    /// Most changes in one document
    #[arg(long, env = "SYNCLINE_DOCUMENT_CHANGES_MAX", default_value_t = 10_000_000)]
    document_changes_max: u32,

    /// Most that one document may take, MiB
    #[arg(long, env = "SYNCLINE_DOCUMENT_MIB_MAX", default_value_t = 1_024)]
    document_mib_max: u32,

    /// Most that one subject may have stored, in all documents together, MiB; counts from when it is first set
    #[arg(long, env = "SYNCLINE_SUBJECT_MIB_MAX")]
    subject_mib_max: Option<u32>,

    /// Most that the data directory may take, MiB; beyond it nothing is taken, and everything can be read
    #[arg(long, env = "SYNCLINE_STORAGE_MIB_MAX")]
    storage_mib_max: Option<u32>,

    /// What has to be free on the disk, MiB, or a tenth of it if that is less; with less nothing is taken; 0: the disk is filled to its end
    #[arg(long, env = "SYNCLINE_DISK_FREE_MIB_MIN", default_value_t = 256)]
    disk_free_mib_min: u32,
}

/// Copies that the server makes by itself.
#[derive(Debug, Args)]
#[command(next_help_heading = "Backups")]
pub(crate) struct BackupArguments {
    /// Directory for copies that the server makes by itself; made if it is not there
    #[arg(long, env = "SYNCLINE_BACKUP_TO", value_name = "DIRECTORY")]
    backup_to: Option<PathBuf>,

    /// Hours between two copies
    #[arg(long, env = "SYNCLINE_BACKUP_EVERY_HOURS", default_value_t = 24, value_parser = clap::value_parser!(u32).range(1..=8_760))]
    backup_every_hours: u32,

    /// Copies that are kept; older ones are removed
    #[arg(long, env = "SYNCLINE_BACKUP_KEEP", default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..))]
    backup_keep: u32,
}

impl BackupArguments {
    /// When copies are made, if they are.
    pub(crate) fn schedule(&self) -> Option<Schedule> {
        let every = Duration::from_secs(u64::from(self.backup_every_hours) * 3600);
        self.backup_to.clone().map(|to| Schedule { to, every, keep: self.backup_keep as usize })
    }
}

/// Who is told what changes.
#[derive(Debug, Args)]
#[command(next_help_heading = "Webhooks")]
pub(crate) struct WebhookArguments {
    /// Address that is told by POST which documents have changed; may be repeated
    #[arg(long, env = "SYNCLINE_WEBHOOK", value_name = "URL", value_parser = web_address, value_delimiter = ',', requires = "webhook_secret_file")]
    webhook: Vec<Url>,

    /// File with the secret that these requests are signed with
    #[arg(long, env = "SYNCLINE_WEBHOOK_SECRET_FILE", value_name = "FILE")]
    webhook_secret_file: Option<PathBuf>,
}

impl WebhookArguments {
    /// Who is told.
    ///
    /// # Errors
    /// When the secret cannot be read, or is none.
    pub(crate) fn configs(&self) -> anyhow::Result<Vec<WebhookConfig>> {
        let Some(file) = self.webhook_secret_file.as_ref().filter(|_| !self.webhook.is_empty()) else {
            return Ok(Vec::new());
        };
        let secret = std::fs::read(file).with_context(|| format!("--webhook-secret-file {}", file.display()))?;
        let secret = secret.trim_ascii().to_vec();
        anyhow::ensure!(secret.len() >= 16, "--webhook-secret-file {}: a secret has 16 bytes or more", file.display());
        let config = |url: &Url| WebhookConfig { url: url.clone(), secret: secret.clone(), trust: Trust::default() };
        Ok(self.webhook.iter().map(config).collect())
    }
}

/// Who may do what.
#[derive(Debug, Args)]
#[command(next_help_heading = "Access")]
pub(crate) struct AccessArguments {
    /// Let everybody who reaches the address read and write everything; needed where other machines reach it and no rules are given
    #[arg(long, env = "SYNCLINE_OPEN", conflicts_with_all = ["token_key", "token_keys_url", "access_url"])]
    open: bool,

    /// File with a key that tokens are verified with: a secret, a public key as PEM, a JWK or a set of JWKs; may be repeated
    #[arg(long, env = "SYNCLINE_TOKEN_KEY", value_name = "FILE", value_delimiter = ',')]
    token_key: Vec<PathBuf>,

    /// Address of a set of JWKs that tokens are verified with, fetched every five minutes
    #[arg(long, env = "SYNCLINE_TOKEN_KEYS_URL", value_name = "URL", value_parser = web_address)]
    token_keys_url: Option<Url>,

    /// The audience (aud) that tokens have to name
    #[arg(long, env = "SYNCLINE_TOKEN_AUDIENCE", value_name = "NAME")]
    token_audience: Option<String>,

    /// The issuer (iss) that tokens have to name
    #[arg(long, env = "SYNCLINE_TOKEN_ISSUER", value_name = "NAME")]
    token_issuer: Option<String>,

    /// What those may do with every document who present no token: read, write, create; more than one with commas
    #[arg(long, env = "SYNCLINE_STRANGERS_MAY", value_name = "PERMISSIONS", value_parser = permission, value_delimiter = ',')]
    strangers_may: Vec<Permissions>,

    /// Address that decides about documents of which a token says nothing, asked by POST
    #[arg(long, env = "SYNCLINE_ACCESS_URL", value_name = "URL", value_parser = web_address)]
    access_url: Option<Url>,

    /// Longest that such a decision may take, milliseconds
    #[arg(long, env = "SYNCLINE_ACCESS_TIMEOUT_MS", default_value_t = 2_000, value_parser = clap::value_parser!(u64).range(1..=60_000))]
    access_timeout_ms: u64,

    /// How long such a decision counts, seconds
    #[arg(long, env = "SYNCLINE_ACCESS_KEEP_SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(0..=86_400))]
    access_keep_seconds: u64,

    /// What counts when there is no decision: nothing is allowed, or these
    #[arg(long, env = "SYNCLINE_ACCESS_OTHERWISE", value_name = "PERMISSIONS", value_parser = permission, value_delimiter = ',')]
    access_otherwise: Vec<Permissions>,

    /// Let an automerge actor belong to the subject that first writes as it: changes of others in its name are refused
    #[arg(long, env = "SYNCLINE_BIND_ACTORS")]
    bind_actors: bool,

    /// Origin of pages that may connect, such as `https://app.example.org`; may be repeated; without it, all may
    #[arg(long, env = "SYNCLINE_ALLOW_ORIGIN", value_name = "ORIGIN", value_delimiter = ',')]
    allow_origin: Vec<String>,

    /// File with certificates (PEM) that are believed beside the system's where keys are fetched and decisions asked for
    #[arg(long, env = "SYNCLINE_TRUST", value_name = "FILE")]
    trust: Option<PathBuf>,
}

impl Arguments {
    /// The bounds on what peers may do.
    pub(crate) fn limits(&self) -> Limits {
        let message_bytes_max = usize::from(self.message_mib_max) * 1024 * 1024;
        Limits {
            message_bytes_max,
            inflate_bytes_max: message_bytes_max,
            session_documents_max: self.session_documents_max,
            blob_bytes_max: u64::from(self.blob_mib_max) * 1024 * 1024,
            blobs_bytes_max: u64::from(self.blobs_mib_max) * 1024 * 1024,
            messages_per_second_max: self.bounds.messages_per_second_max,
            bytes_per_second_max: u64::from(self.bounds.mib_per_second_max) * 1024 * 1024,
            document_changes_max: self.bounds.document_changes_max,
            document_bytes_max: u64::from(self.bounds.document_mib_max) * 1024 * 1024,
            subject_connections_max: self.network.connections_per_subject_max,
            subject_bytes_max: self.bounds.subject_mib_max.map(|mib| u64::from(mib) * 1024 * 1024),
            bind_actors: self.access.bind_actors,
            ..Limits::default()
        }
    }

    /// The whole server.
    ///
    /// # Errors
    /// When a file that is named cannot be read.
    pub(crate) fn server(&self, loader: &Arc<Processes>) -> anyhow::Result<Config> {
        let files = self.network.tls_cert.clone().zip(self.network.tls_key.clone());
        let Settings { limits, doors, room, expire_untouched } = self.settings();
        Ok(Config {
            rules: self.access.rules()?,
            limits,
            deleted_keep: days(self.deleted_keep_days),
            doors,
            room,
            expire_untouched,
            tls: files.map(|(certificate, key)| TlsFiles { certificate, key }),
            stop_timeout: self.stop_timeout(),
            webhooks: self.webhooks.configs()?,
            viewer: Arc::<Processes>::clone(loader),
            ..Config::new(self.listen, self.data.clone(), Arc::<Processes>::clone(loader))
        })
    }

    /// What can be set while it runs.
    pub(crate) fn settings(&self) -> Settings {
        let (network, bounds) = (&self.network, &self.bounds);
        let mib = |number: u32| u64::from(number) * 1024 * 1024;
        Settings {
            limits: self.limits(),
            doors: Doors {
                connections_max: network.connections_max,
                per_address_max: network.connections_per_address_max,
                trusted_proxies: network.trusted_proxy.clone(),
            },
            room: Room {
                free_bytes_min: mib(bounds.disk_free_mib_min),
                stored_bytes_max: bounds.storage_mib_max.map(mib),
            },
            expire_untouched: self.expire_untouched_days.map(days),
        }
    }

    /// The same arguments with what can be set while it runs from others.
    pub(crate) fn with_settings_of(&self, other: &Self) -> Settings {
        let fixed = self.limits();
        let settings = other.settings();
        let limits = Limits {
            message_bytes_max: fixed.message_bytes_max,
            inflate_bytes_max: fixed.inflate_bytes_max,
            blob_bytes_max: fixed.blob_bytes_max,
            blobs_bytes_max: fixed.blobs_bytes_max,
            bind_actors: fixed.bind_actors,
            ..settings.limits
        };
        Settings { limits, ..settings }
    }

    /// Longest that a stop waits for slow peers.
    pub(crate) fn stop_timeout(&self) -> Duration {
        Duration::from_secs(self.network.stop_seconds_max.into())
    }
}

impl AccessArguments {
    /// Who may do what.
    ///
    /// # Errors
    /// When the trusted certificates cannot be read.
    pub(crate) fn rules(&self) -> anyhow::Result<Rules> {
        let all = |permissions: &[Permissions]| permissions.iter().copied().fold(Permissions::NONE, Permissions::and);
        let callback = self.access_url.clone().map(|url| CallbackConfig {
            url,
            timeout: Duration::from_millis(self.access_timeout_ms),
            keep: Duration::from_secs(self.access_keep_seconds),
            otherwise: all(&self.access_otherwise),
        });
        let keys = !self.token_key.is_empty() || self.token_keys_url.is_some() || self.access_url.is_some();
        if self.open && keys {
            bail!("--open lets everybody in: it cannot be given with --token-key, --token-keys-url or --access-url");
        }
        Ok(Rules {
            open: self.open,
            key_files: self.token_key.clone(),
            keys_url: self.token_keys_url.clone(),
            audience: self.token_audience.clone(),
            issuer: self.token_issuer.clone(),
            callback,
            strangers: all(&self.strangers_may),
            origins: self.allow_origin.clone(),
            trust: self.trust()?,
        })
    }

    /// Whose certificates are believed where the server asks somebody else.
    ///
    /// # Errors
    /// When they cannot be read.
    pub(crate) fn trust(&self) -> anyhow::Result<Trust> {
        let trust = Trust::default();
        let Some(file) = &self.trust else { return Ok(trust) };
        let pem = std::fs::read(file).with_context(|| format!("--trust {}", file.display()))?;
        trust.add_pem(&pem).with_context(|| format!("--trust {}", file.display()))
    }
}

fn days(number: u32) -> Duration {
    Duration::from_secs(u64::from(number) * 24 * 3600)
}

/// A permission by its name.
pub(crate) fn permission(text: &str) -> Result<Permissions, String> {
    Permissions::named(text).ok_or_else(|| "permissions are read, write, create, delete and admin".to_owned())
}

fn web_address(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| error.to_string())?;
    let web = matches!(url.scheme(), "http" | "https") && url.has_host();
    web.then_some(url).ok_or_else(|| "an address begins with https:// or http://".to_owned())
}
