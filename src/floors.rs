//! Holds the imports to the floors that the crate's documentation shows.
//!
//! It reads the sources rather than asking the compiler, which sees one crate and lets everybody import everybody.

use std::fs;
use std::path::{Path, PathBuf};

use syn::visit::{self, Visit};
use syn::{Attribute, ItemMod, ItemUse, Macro, UseTree};

/// Imports point down, and never between modules of one floor. `model` is the vocabulary: all but itself may import it.
const FLOORS: [(&str, u8); 15] = [
    ("server", 4),
    ("ctl", 4),
    ("admin", 3),
    ("proxy", 3),
    ("raft", 2),
    ("upstream", 2),
    ("store", 1),
    ("table", 1),
    ("model", 0),
    ("config", 0),
    ("observe", 0),
    ("secrets", 0),
    ("documents", 0),
    ("pb", 0),
    ("tls", 0),
];

/// Arrows that point down and are forbidden all the same.
const NEVER: [(&str, &str); 4] = [("proxy", "raft"), ("proxy", "store"), ("raft", "table"), ("ctl", "admin")];

/// Outside crates that only their owners know.
const OWNED: [(&str, &[&str]); 22] = [
    ("openraft", &["store", "raft"]),
    ("sled", &["store"]),
    ("bincode", &["store"]),
    ("tonic", &["raft", "pb", "admin"]),
    ("prost", &["pb", "raft"]),
    ("axum", &["admin"]),
    ("matchit", &["table"]),
    ("arc_swap", &["table"]),
    ("imbl", &["model", "table"]),
    ("ring", &["secrets"]),
    ("prometheus", &["observe"]),
    ("tracing_subscriber", &["observe"]),
    ("toml", &["config"]),
    ("clap", &["ctl"]),
    ("clap_complete", &["ctl"]),
    ("reqwest", &["ctl"]),
    ("rcgen", &["tls"]),
    ("httparse", &["upstream"]),
    ("h2", &["upstream", "proxy"]),
    ("opentelemetry", &["observe", "proxy"]),
    ("opentelemetry_sdk", &["observe"]),
    ("opentelemetry_otlp", &["observe"]),
];

fn floor(module: &str) -> Option<u8> {
    FLOORS.iter().find(|(name, _)| *name == module).map(|(_, floor)| *floor)
}

fn is_allowed(from: &str, to: &str) -> bool {
    let Some((above, below)) = floor(from).zip(floor(to)) else { return false };
    from == to || ((above > below || to == "model") && from != "model" && !NEVER.contains(&(from, to)))
}

/// Collects first segments: of `crate::x` and of `super::...` that leaves the top module as `x`, of all other paths as they stand.
struct Imports {
    /// How many modules enclose this place; the top module is 1.
    depth: usize,
    inside: Vec<String>,
    outside: Vec<String>,
}

impl Imports {
    fn of(text: &str, depth: usize) -> Imports {
        let mut imports = Imports { depth, inside: Vec::new(), outside: Vec::new() };
        imports.visit_file(&syn::parse_file(text).unwrap());
        imports
    }

    fn path(&mut self, segments: &[String]) {
        let supers = segments.iter().take_while(|segment| *segment == "super").count();
        let leaves = supers > 0 && supers >= self.depth;
        match segments {
            [first, second, ..] if first == "crate" => self.inside.push(second.clone()),
            _ if leaves => self.inside.extend(segments.get(supers).cloned()),
            [first, _, ..] => self.outside.push(first.clone()),
            _ => {}
        }
    }

    fn tree(&mut self, before: &[String], tree: &UseTree) {
        let with = |name: &syn::Ident| before.iter().cloned().chain([name.to_string()]).collect::<Vec<_>>();
        match tree {
            UseTree::Path(path) => self.tree(&with(&path.ident), &path.tree),
            UseTree::Name(name) => self.path(&with(&name.ident)),
            UseTree::Rename(rename) => self.path(&with(&rename.ident)),
            UseTree::Glob(_) => self.path(before),
            UseTree::Group(group) => group.items.iter().for_each(|item| self.tree(before, item)),
        }
    }
}

fn is_test(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("test")
            || attribute.path().is_ident("cfg")
                && attribute.meta.require_list().is_ok_and(|list| list.tokens.to_string() == "test")
    })
}

impl<'ast> Visit<'ast> for Imports {
    fn visit_item_mod(&mut self, module: &'ast ItemMod) {
        if !is_test(&module.attrs) {
            self.depth += 1;
            visit::visit_item_mod(self, module);
            self.depth -= 1;
        }
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        if !is_test(&item.attrs) {
            self.tree(&[], &item.tree);
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let segments: Vec<String> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        self.path(&segments);
        visit::visit_path(self, path);
    }

    // A macro's arguments are no syntax tree; its paths are found in its tokens.
    fn visit_macro(&mut self, call: &'ast Macro) {
        let text = call.tokens.to_string().replace(' ', "");
        for (start, _) in text.match_indices("crate::") {
            let rest = &text[start + "crate::".len()..];
            self.inside.push(rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect());
        }
        visit::visit_macro(self, call);
    }
}

/// Every source file but tests, with the top module that it belongs to and its depth.
fn sources(dir: &Path, found: &mut Vec<(PathBuf, String, usize)>) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for path in fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
        let stem = path.file_stem().unwrap().to_string_lossy().into_owned();
        if stem == "tests" {
            continue;
        }
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let inner = path.strip_prefix(&root).unwrap();
            let names: Vec<_> = inner.iter().map(|name| name.to_string_lossy().into_owned()).collect();
            // Files of the root are the crate itself and the program.
            if names.len() > 1 {
                let depth = names.len() - usize::from(stem == "mod");
                found.push((inner.to_owned(), names[0].clone(), depth));
            }
        }
    }
}

#[test]
fn imports_point_down() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    sources(&root, &mut found);
    let mut faults = Vec::new();
    let mut arrows = 0;
    for (file, module, depth) in found {
        let imports = Imports::of(&fs::read_to_string(root.join(&file)).unwrap(), depth);
        arrows += imports.inside.len();
        let up = imports.inside.iter().filter(|to| !is_allowed(&module, to));
        faults.extend(up.map(|to| format!("{}: {module} must not import {to}", file.display())));
        let owned = |name: &&String| OWNED.iter().any(|(owned, owners)| owned == name && !owners.contains(&module.as_str()));
        let foreign = imports.outside.iter().filter(owned);
        faults.extend(foreign.map(|name| format!("{}: only its owners may know {name}", file.display())));
    }
    faults.sort();
    faults.dedup();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert!(arrows > 50, "the sources were not read: {arrows} imports");
}

#[test]
fn every_form_of_import_is_seen() {
    let text = "use crate::{raft::Node, table as t};\nuse super::super::store::open;\nmod m { use super::super::super::admin; use super::near; }
        fn f() { crate::proxy::bind(); let x: sled::Db; println!(\"{}\", crate::server::X); }
        #[cfg(test)]\nmod tests { use crate::ctl; }";
    let imports = Imports::of(text, 2);
    let mut inside = imports.inside.clone();
    inside.sort();
    assert_eq!(inside, ["admin", "proxy", "raft", "server", "store", "table"]);
    assert!(imports.outside.contains(&"sled".to_owned()));
    for (from, to, expected) in [
        ("proxy", "table", true),
        ("proxy", "raft", false),
        ("raft", "store", true),
        ("raft", "table", false),
        ("raft", "upstream", false),
        ("store", "raft", false),
        ("config", "model", true),
        ("model", "config", false),
        ("config", "observe", false),
        ("server", "ctl", false),
        ("ctl", "config", true),
        ("ctl", "newcomer", false),
    ] {
        assert_eq!(is_allowed(from, to), expected, "{from} -> {to}");
    }
}
