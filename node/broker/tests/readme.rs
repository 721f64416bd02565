//! README.md's table of APIs is the one that the daemon serves.

use flowstone_wire::compatibility_table;
use std::path::Path;

const BEGIN: &str = "<!-- apis -->\n";
const END: &str = "<!-- /apis -->";

#[test]
fn the_readme_has_the_table_of_apis() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../README.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = text.split_once(BEGIN).expect("README.md has a block of APIs");
    let (block, after) = rest.split_once(END).expect("the block of APIs ends");
    let table = compatibility_table();
    if block == table {
        return;
    }
    if std::env::var_os("UPDATE_README").is_some() {
        std::fs::write(&path, format!("{before}{BEGIN}{table}{END}{after}")).unwrap();
        return;
    }
    panic!(
        "README.md's table of APIs is not that of node/wire/src/table.rs; to update it:\n\
         UPDATE_README=1 cargo test -p flowstone-broker --test readme"
    );
}
