//! The example app in two windows of a real browser, with the packages that its users have.
//!
//! Owns: that edits of both meet after one was offline, and that the status line tells the truth meanwhile: with a network
//! that is cut, and with one that is silently gone.
//! Must not: reach into the app; a person could do all of it by hand.
//! Next: `../src/chromium.rs`; examples/web-todo.

use serde_json::json;
use syncline_e2e::token::{signed, unix_seconds};
use syncline_e2e::{Chromium, DataDirectory, Server};

const SECRET: &[u8] = b"a secret that is long enough for HS256";
const EVERYWHERE: &str = "Saved here and on the server";

fn token_of(name: &str, may: &str) -> String {
    let grants = json!([{ "documents": "*", "may": [may] }]);
    signed(&json!({ "sub": name, "exp": unix_seconds() + 3_600, "syncline": grants }), SECRET)
}

#[test]
fn two_windows_agree_after_one_was_offline() {
    let Some(chromium) = Chromium::start() else { return };
    let data = DataDirectory::new();
    let key = data.path().join("key");
    std::fs::write(&key, SECRET).expect("a key file");
    let key = key.to_str().expect("a path in UTF-8");
    let server = Server::start_with(&data.path().join("data"), &["--token-key", key]);

    let stranger = chromium.open("Mallory", &server.url(), "");
    let ada = chromium.open("Ada", &server.url(), &token_of("ada", "create"));
    ada.name_list("Weekend at the lake");
    for item in ["Book the cabin", "Milk", "Charge the lamps"] {
        ada.add(item);
    }
    ada.tick("Book the cabin");
    ada.until_status(EVERYWHERE);
    let ben = chromium.open_on_phone("Ben", &server.url(), &token_of("ben", "write"), &ada.list());
    ben.until_items(&[("Book the cabin", true), ("Milk", false), ("Charge the lamps", false)]);
    ada.until_people("Here: Ada (you), Ben");
    ben.focus("Milk");
    ada.until_writers(&[("Milk", "Ben")]);
    ada.picture("web-todo.png");

    ben.until_kept();
    ben.cut();
    ben.until_status("Offline · all on the server");
    ben.until_people("Here: Ben (you)");
    ben.type_into("Milk", 0, "Oat ");
    ben.add("Matches");
    ada.type_into("Milk", 4, ", 2 l");
    ada.tick("Charge the lamps");
    ada.add("Ask Mira about the canoe");
    ada.until_status(EVERYWHERE);

    // The page comes from its own cache, the list from the browser's storage.
    ben.until_status("Offline · 5 changes saved here");
    ben.reload();
    ben.until_items(&[("Book the cabin", true), ("Oat Milk", false), ("Charge the lamps", false), ("Matches", false)]);
    ben.until_waiting(&["Oat Milk", "Matches"]);
    ben.until_status("Offline · 5 changes saved here");
    ben.picture("web-todo-offline.png");
    ben.mend();

    ben.until_status(EVERYWHERE);
    ben.until_waiting(&[]);
    let items = ben.items();
    ada.until_items(&items.iter().map(|(text, done)| (text.as_str(), *done)).collect::<Vec<_>>());
    ada.until_status(EVERYWHERE);
    ada.until_people("Here: Ada (you), Ben");
    // Which of two items added at a time comes first is a matter of chance, and the same in both windows.
    let mut sorted = items;
    sorted.sort();
    let expected = [
        ("Ask Mira about the canoe", false),
        ("Book the cabin", true),
        ("Charge the lamps", true),
        ("Matches", false),
        ("Oat Milk, 2 l", false),
    ];
    assert_eq!(sorted, expected.map(|(text, done)| (text.to_owned(), done)));

    ada.lose_network();
    ada.until_status("Offline · all on the server");
    ada.add("Sun cream");
    ada.until_status("Offline · 1 change saved here");
    ada.until_waiting(&["Sun cream"]);
    ada.find_network();
    ada.until_status(EVERYWHERE);
    let items = ada.items();
    assert!(items.contains(&("Sun cream".to_owned(), false)), "{items:?}");
    ben.until_items(&items.iter().map(|(text, done)| (text.as_str(), *done)).collect::<Vec<_>>());
    stranger.until_status("The server does not let you in. Is the token right?");
    chromium.quit();
}
