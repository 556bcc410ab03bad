//! A to-do list on the command line: offline, on disk, and in step with everyone who has the list's address.
//!
//!     todo new Groceries              prints the list's address
//!     todo add ADDRESS Milk           todo done ADDRESS 1           todo show ADDRESS
//!     todo watch ADDRESS              shows each change as it comes
//!
//! `TODO_DIR` is where lists are kept (`./todos`), `TODO_SERVER` a server to sync with; without one, everything works on
//! this machine. A JavaScript page that does `repo.find(address)` sees `{ title, items: [{ id, text, done }] }`.

use std::io::Write;
use std::time::Duration;

use anyhow::{Context, bail};
use autosurgeon::{Hydrate, Reconcile};
use syncline::value::Text;
use syncline::{Document, Error, Receipt, Repo};

#[derive(Debug, Clone, PartialEq, Hydrate, Reconcile)]
pub(crate) struct List {
    pub(crate) title: Text,
    pub(crate) items: Vec<Item>,
}

#[derive(Debug, Clone, PartialEq, Hydrate, Reconcile)]
pub(crate) struct Item {
    // Items are told apart by this, so that two people who add one at the same time get both.
    #[key]
    pub(crate) id: Text,
    pub(crate) text: Text,
    pub(crate) done: bool,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let variable = |name: &str| std::env::var(name).ok();
    let directory = variable("TODO_DIR").unwrap_or_else(|| "todos".to_owned());
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    run(&directory, variable("TODO_SERVER").as_deref(), &arguments, &mut std::io::stdout()).await
}

/// Runs one command.
pub(crate) async fn run(
    directory: &str,
    server: Option<&str>,
    arguments: &[String],
    out: &mut impl Write,
) -> anyhow::Result<()> {
    let repo = Repo::open(directory)?;
    let link = server.map(|address| repo.connect(address)).transpose()?;
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let document = match arguments[..] {
        ["new", title] => {
            let list = repo.create_from(&List { title: title.into(), items: Vec::new() })?;
            writeln!(out, "{}", list.url())?;
            list
        }
        ["add", address, text] => {
            let list = open(&repo, address).await?;
            list.update(|list: &mut List| list.add(text))?;
            list
        }
        ["done", address, number] => {
            let list = open(&repo, address).await?;
            let number: usize = number.parse().context("the number of an item")?;
            list.update(|list: &mut List| list.finish(number))?.context("no item has this number")?;
            list
        }
        ["show", address] => open(&repo, address).await?,
        ["watch", address] => {
            let list = open(&repo, address).await?;
            let mut watch = list.watch();
            loop {
                show(&list, out)?;
                watch.changed().await?;
            }
        }
        _ => bail!("todo new TITLE | add ADDRESS TEXT | done ADDRESS NUMBER | show ADDRESS | watch ADDRESS"),
    };
    show(&document, out)?;
    if link.is_some() {
        match document.wait(Receipt::Server, Duration::from_secs(5)).await {
            Ok(()) => writeln!(out, "on the server")?,
            Err(Error::NoReceipt { .. }) => writeln!(out, "saved here; it goes to the server when it can be reached")?,
            Err(error) => return Err(error.into()),
        }
    }
    drop(document);
    Ok(repo.close().await?)
}

/// The list: at once if it is here, else from the server.
async fn open(repo: &Repo, address: &str) -> anyhow::Result<Document> {
    let url = address.parse()?;
    match repo.find_local(&url) {
        Err(Error::NotHere { .. }) => Ok(repo.find(&url).await?),
        found => Ok(found?),
    }
}

fn show(document: &Document, out: &mut impl Write) -> anyhow::Result<()> {
    let list: List = document.hydrate()?;
    writeln!(out, "{}", list.title)?;
    for (item, number) in list.items.iter().zip(1..) {
        writeln!(out, "{number:>3} [{}] {}", if item.done { "x" } else { " " }, item.text)?;
    }
    Ok(())
}

impl List {
    /// Puts a new item at the end.
    pub(crate) fn add(&mut self, text: &str) {
        let id = uuid::Uuid::new_v4().to_string();
        self.items.push(Item { id: id.into(), text: text.into(), done: false });
    }

    /// Ticks the item with this number, as it is shown.
    fn finish(&mut self, number: usize) -> Option<()> {
        let item = self.items.get_mut(number.checked_sub(1)?)?;
        item.done = true;
        Some(())
    }
}
