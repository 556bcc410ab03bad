//! The example `todo`, command by command, with a JavaScript page on the same list.
//!
//! Owns: that what the example shows is true. Must not: know its insides beyond `run`.
//! Next: `../examples/todo.rs`.

mod support;

#[path = "../examples/todo.rs"]
#[allow(dead_code, reason = "its main is not run")]
mod todo;

use serde_json::json;
use support::{address, directory, serve, within};
use syncline_e2e::{Browser, PackageSet};

/// Runs a command and returns what it says.
async fn todo(directory: &tempfile::TempDir, server: Option<&str>, arguments: &[&str]) -> String {
    let arguments: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
    let mut said = Vec::new();
    let path = directory.path().to_string_lossy().into_owned();
    let running = todo::run(&path, server, &arguments, &mut said);
    within("the command is done", running).await.expect("a command that works");
    String::from_utf8(said).expect("text")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_made_offline_is_shared_with_a_page() {
    let (data, here) = (directory(), directory());
    let said = todo(&here, None, &["new", "Groceries"]).await;
    let list = said.lines().next().expect("an address").to_owned();
    todo(&here, None, &["add", &list, "Milk"]).await;
    let said = todo(&here, None, &["add", &list, "Bread"]).await;
    assert_eq!(said, "Groceries\n  1 [ ] Milk\n  2 [ ] Bread\n");

    let Some(browser) = Browser::start(PackageSet::Newest) else { return };
    let server = serve(data.path(), None).await;
    let address = address(&server);
    let said = todo(&here, Some(&address), &["done", &list, "2"]).await;
    assert_eq!(said, "Groceries\n  1 [ ] Milk\n  2 [x] Bread\non the server\n");
    let page = tokio::task::block_in_place(|| {
        let page = browser.open("page", &address);
        page.find(&list);
        page
    });
    let shown = tokio::task::block_in_place(|| page.read(&list));
    assert_eq!(shown["title"], "Groceries");
    assert_eq!((&shown["items"][1]["text"], &shown["items"][1]["done"]), (&json!("Bread"), &json!(true)));
    tokio::task::block_in_place(|| {
        let item = json!({ "id": "from the page", "text": "Eggs", "done": false });
        let heads = page.change(
            &list,
            json!([
                { "op": "insert", "path": ["items"], "at": 0, "values": [item] },
                { "op": "splice", "path": ["title"], "at": 0, "insert": "Our " },
            ]),
        );
        page.until_on_server(&list, &heads);
    });
    let there = directory();
    let said = todo(&there, Some(&address), &["show", &list]).await;
    assert_eq!(said, "Our Groceries\n  1 [ ] Eggs\n  2 [ ] Milk\n  3 [x] Bread\non the server\n");
}
