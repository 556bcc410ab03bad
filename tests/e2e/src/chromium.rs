//! A real Chromium with the example app in its windows.
//!
//! Owns: finding Chromium, building `examples/web-todo`, and the commands of `js/chromium/main.mjs`.
//! Must not: know a scenario.
//! Next: `browser.rs`, which has the process; `../tests/browser.rs`.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::browser::{self, Browser, Page};
use crate::skip;

/// What Debian, Ubuntu and others call it.
const NAMES: [&str; 4] = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];

/// One browser process, and the app as its users' web server has it. Dropping it ends the process.
pub struct Chromium {
    browser: Browser,
    // Last, so that the processes that write there have ended.
    _directory: TempDir,
}

impl Chromium {
    /// Builds the app and starts Chromium; `None`, said on standard output, where that is not possible.
    ///
    /// # Panics
    /// When it is not possible although everything is required, or the app does not build.
    #[must_use]
    pub fn start() -> Option<Self> {
        match Self::try_start() {
            Ok(started) => Some(started),
            Err(reason) => {
                skip(&reason);
                None
            }
        }
    }

    fn try_start() -> Result<Self, String> {
        let name = NAMES.into_iter().find(|name| browser::runs(name));
        let name = name.ok_or("chromium is missing; install it (Debian: apt-get install chromium)")?;
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let (driver, app) = (root.join("js/chromium"), root.join("../../examples/web-todo"));
        browser::install(&driver)?;
        browser::install(&app)?;
        let directory = tempfile::Builder::new().prefix("syncline-chromium-").tempdir().expect("a temporary directory");
        let build = directory.path().join("app");
        build_app(&app, &build);
        let mut command = Command::new("node");
        command.arg("main.mjs").arg(path_of(name)).arg(&build).current_dir(&driver);
        // Profiles of a browser that was killed would otherwise stay.
        command.env("TMPDIR", directory.path());
        Ok(Self { browser: Browser::spawn(command), _directory: directory })
    }

    /// Opens the app in a window of its own, as somebody of this name with this token.
    #[must_use]
    pub fn open(&self, name: &str, server: &str, token: &str) -> Window<'_> {
        self.open_with(name, json!({ "server": server, "token": token }))
    }

    /// As [`Chromium::open`], on a phone in the dark, with a link to a list.
    #[must_use]
    pub fn open_on_phone(&self, name: &str, server: &str, token: &str, list: &str) -> Window<'_> {
        self.open_with(name, json!({ "server": server, "token": token, "list": list, "phone": true }))
    }

    fn open_with(&self, name: &str, options: Value) -> Window<'_> {
        let page = self.browser.page(name);
        page.call("open", options);
        Window(page)
    }

    /// Ends the browser in order.
    pub fn quit(self) {
        self.browser.page("").call("quit", json!({}));
    }
}

/// The app in one window, with a network of its own.
pub struct Window<'a>(Page<'a>);

impl Window<'_> {
    /// What follows the address of the app in a link to the list that is open.
    ///
    /// # Panics
    /// As the other commands, with what the page says, when it does not come to that.
    #[must_use]
    pub fn list(&self) -> String {
        self.0.call("list", json!({})).as_str().expect("a text").to_owned()
    }

    /// Names the list.
    pub fn name_list(&self, text: &str) {
        self.0.call("title", json!({ "text": text }));
    }

    /// Adds an item below the others.
    pub fn add(&self, text: &str) {
        self.0.call("add", json!({ "text": text }));
    }

    /// Puts the cursor into an item, `at` letters from its start, and types.
    pub fn type_into(&self, item: &str, at: usize, text: &str) {
        self.0.call("type", json!({ "item": item, "at": at, "text": text }));
    }

    /// Puts the cursor into an item.
    pub fn focus(&self, item: &str) {
        self.0.call("focus", json!({ "item": item }));
    }

    /// Marks an item as done.
    pub fn tick(&self, item: &str) {
        self.0.call("tick", json!({ "item": item }));
    }

    /// Cuts the window's network: nothing answers any more, neither the server nor the app's pages.
    pub fn cut(&self) {
        self.0.call("cut", json!({}));
    }

    /// Mends it.
    pub fn mend(&self) {
        self.0.call("mend", json!({}));
    }

    /// Takes the network away as a dead spot does: sockets stay open, and nothing passes.
    pub fn lose_network(&self) {
        self.0.call("lose_network", json!({}));
    }

    /// Brings it back.
    pub fn find_network(&self) {
        self.0.call("find_network", json!({}));
    }

    /// Loads the page again.
    pub fn reload(&self) {
        self.0.call("reload", json!({}));
    }

    /// Waits until the page has what it needs to be opened without a network.
    pub fn until_kept(&self) {
        self.0.call("until_kept", json!({}));
    }

    /// Takes a picture for the documentation, if a directory for them is named in `SYNCLINE_SCREENSHOTS`.
    pub fn picture(&self, file: &str) {
        if let Some(directory) = std::env::var_os("SYNCLINE_SCREENSHOTS") {
            self.0.call("screenshot", json!({ "file": Path::new(&directory).join(file) }));
        }
    }

    /// The items on the page in their order, each with whether it is done.
    #[must_use]
    pub fn items(&self) -> Vec<(String, bool)> {
        let items = self.0.call("items", json!({}));
        let item = |item: &Value| (item[0].as_str().expect("a text").to_owned(), item[1] == true);
        items.as_array().expect("a list").iter().map(item).collect()
    }

    /// Waits until exactly these items are on the page in this order, each with whether it is done.
    pub fn until_items(&self, items: &[(&str, bool)]) {
        self.0.call("until_items", json!({ "items": items }));
    }

    /// Waits until exactly these items are marked as not on the server yet.
    pub fn until_waiting(&self, items: &[&str]) {
        self.0.call("until_waiting", json!({ "items": items }));
    }

    /// Waits until exactly these items are marked as being written by somebody: item and name.
    pub fn until_writers(&self, writers: &[(&str, &str)]) {
        self.0.call("until_writers", json!({ "writers": writers }));
    }

    /// Waits until the page says that these people are here.
    pub fn until_people(&self, people: &str) {
        self.0.call("until_people", json!({ "people": people }));
    }

    /// Waits until this is the status line.
    pub fn until_status(&self, status: &str) {
        self.0.call("until_status", json!({ "status": status }));
    }
}

/// Builds the app into a directory, with its types checked.
fn build_app(app: &Path, into: &Path) {
    let output = Command::new("npm")
        .args(["run", "--silent", "build", "--", "--emptyOutDir", "--outDir"])
        .arg(into)
        .current_dir(app)
        .output()
        .expect("npm starts");
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "the app does not build:\n{}{}", said(&output.stdout), said(&output.stderr));
}

/// Where a program is that the shell would find by its name.
fn path_of(name: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|directory| directory.join(name)).find(|file| file.is_file());
    found.expect("a program that runs is somewhere on the path")
}
