//! `syncline-server token`: keys, tokens, and what is in one.
//!
//! Owns: the commands, files that only their owner may read. Must not: print a key, or a token but the one that is made.
//! Next: the server crate's `access/token.rs`; docs/access.md.

use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, Subcommand, ValueEnum};
use syncline_core::access::Permissions;
use syncline_server::access::{Claims, Documents, GrantClaim, KeyKind, NewKey, SigningKey, inspect};

use crate::arguments::permission;
use crate::say::say;

/// What can be done with tokens.
#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Make a key: a secret, or a pair of which the public half is written to FILE.pub
    NewKey {
        /// Where to write it; not overwritten
        file: PathBuf,
        /// What kind: a secret, which who verifies has to know too, or a pair
        #[arg(long, value_enum, default_value_t = Kind::Eddsa)]
        algorithm: Kind,
    },
    /// Make a token and print it
    Mint(MintArguments),
    /// Print what a token says, which comes on standard input; its signature is not verified
    Inspect,
}

/// The algorithms.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Kind {
    /// A secret
    Hs256,
    /// A pair, Ed25519
    Eddsa,
    /// A pair, P-256
    Es256,
}

/// What a token is to say.
#[derive(Debug, Args)]
pub(crate) struct MintArguments {
    /// File with the secret or the private key
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// Who it is for
    #[arg(long, value_name = "NAME")]
    subject: Option<String>,
    /// What is permitted: read, write, create, delete, admin; more than one with commas
    #[arg(long, value_name = "PERMISSIONS", value_parser = permission, value_delimiter = ',', required = true)]
    may: Vec<Permissions>,
    /// With every document
    #[arg(long)]
    all: bool,
    /// With this document: its id or automerge: address; may be repeated
    #[arg(long, value_name = "ID")]
    document: Vec<String>,
    /// With documents whose id begins with this text
    #[arg(long, value_name = "TEXT")]
    prefix: Option<String>,
    /// With documents whose id begins with these bytes, as hexadecimal digits
    #[arg(long, value_name = "HEX")]
    prefix_hex: Option<String>,
    /// For how long, such as 90s, 15m, 12h or 30d
    #[arg(long, default_value = "1h", value_parser = duration)]
    valid: Duration,
    /// Which server it is for (aud)
    #[arg(long, value_name = "NAME")]
    audience: Option<String>,
    /// Who issues it (iss)
    #[arg(long, value_name = "NAME")]
    issuer: Option<String>,
}

impl TokenCommand {
    /// Does it.
    ///
    /// # Errors
    /// When a file cannot be read or written, or the token would permit nothing.
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        match self {
            Self::NewKey { file, algorithm } => new_key(file, *algorithm),
            Self::Mint(arguments) => {
                say(format_args!("{}", arguments.mint()?));
                Ok(())
            }
            Self::Inspect => {
                let mut token = String::new();
                std::io::stdin().take(64 * 1024).read_to_string(&mut token)?;
                let (header, claims) = inspect(token.trim())?;
                say(format_args!(
                    "{}\n{}",
                    serde_json::to_string_pretty(&header)?,
                    serde_json::to_string_pretty(&claims)?
                ));
                Ok(())
            }
        }
    }
}

impl MintArguments {
    fn mint(&self) -> anyhow::Result<String> {
        let key = SigningKey::read(&self.key)?;
        let may = self.may.iter().copied().fold(Permissions::NONE, Permissions::and);
        let may: Vec<String> = may.names().map(str::to_owned).collect();
        let grant = |documents, prefix| GrantClaim { documents, prefix, prefix_hex: None, may: may.clone() };
        let mut grants = Vec::new();
        if self.all {
            grants.push(grant(Some(Documents::All("*".to_owned())), None));
        }
        if !self.document.is_empty() {
            grants.push(grant(Some(Documents::Some(self.document.clone())), None));
        }
        if let Some(prefix) = &self.prefix {
            grants.push(grant(None, Some(prefix.clone())));
        }
        if let Some(hex) = &self.prefix_hex {
            grants.push(GrantClaim { prefix_hex: Some(hex.clone()), ..grant(None, None) });
        }
        if grants.is_empty() {
            bail!("say with which documents: --all, --document, --prefix or --prefix-hex");
        }
        let mut claims = Claims::lasting(self.valid);
        claims.sub.clone_from(&self.subject);
        claims.iss.clone_from(&self.issuer);
        claims.aud = self.audience.clone().map(serde_json::Value::String);
        claims.syncline = grants;
        Ok(claims.mint(&key)?)
    }
}

fn new_key(file: &Path, kind: Kind) -> anyhow::Result<()> {
    let kind = match kind {
        Kind::Hs256 => KeyKind::Secret,
        Kind::Eddsa => KeyKind::Ed25519,
        Kind::Es256 => KeyKind::P256,
    };
    let NewKey { private, public } = NewKey::make(kind).context("the system gives no random numbers")?;
    write_new(file, &private, 0o600)?;
    say(format_args!("{}: to sign tokens with (`syncline-server token mint --key`)", file.display()));
    let mut verifies = file.to_owned();
    if let Some(public) = public {
        verifies.as_mut_os_string().push(".pub");
        write_new(&verifies, &public, 0o644)?;
    }
    say(format_args!("{}: for the server (`syncline-server --token-key`)", verifies.display()));
    Ok(())
}

fn write_new(file: &Path, content: &str, mode: u32) -> anyhow::Result<()> {
    let opened = OpenOptions::new().write(true).create_new(true).mode(mode).open(file);
    let mut opened = opened.with_context(|| format!("{} cannot be made", file.display()))?;
    opened.write_all(content.as_bytes())?;
    Ok(opened.sync_all()?)
}

/// A number and a unit.
fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || "write a number and s, m, h or d, such as 12h".to_owned();
    let (number, unit) = text.split_at(text.len().saturating_sub(1).min(text.len()));
    let seconds: u64 = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return Err(wrong()),
    };
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let whole = number.checked_mul(seconds).filter(|seconds| (1..=3_153_600_000).contains(seconds));
    whole.map(Duration::from_secs).ok_or_else(wrong)
}
