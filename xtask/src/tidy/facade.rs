//! The facade: `recurrent` exports whatever the crates below it export for users, and users can
//! construct every type.
//!
//! Names are compared without their modules. A module that the facade re-exports counts with all
//! that is in it.

use std::collections::BTreeSet;
use std::error::Error;
use std::path::{Path, PathBuf};

use proc_macro2::{TokenStream, TokenTree};
use quote::ToTokens;
use syn::{Attribute, File, Ident, ImplItem, Item, ReturnType, TraitItem, UseTree, Visibility};

use super::{Problem, Source};

const FACADE: &str = "recurrent/src";
/// The crates whose exports are for users.
const CRATES: [&str; 2] = ["rnn-core/src", "rnn-train/src"];
/// What they export for other crates of the workspace: `Device` takes its place.
const INTERNAL: [&str; 4] = [
    "Autodiff",
    "TrackedBuffer",
    "TrackedSwapped",
    "gradients_inside",
];

type Names = BTreeSet<String>;

pub(super) fn check(sources: &[Source]) -> Result<Vec<Problem>, Box<dyn Error>> {
    let library = Library::read(sources)?;
    let facade = library.exports(Path::new(FACADE));
    let made = library.made();
    let mut problems = Vec::new();
    for root in CRATES {
        let root = Path::new(root);
        let names = library.exports(root);
        for name in names
            .iter()
            .filter(|name| !INTERNAL.contains(&name.as_str()))
        {
            let problem = |text| Problem {
                file: root.join("lib.rs"),
                line: 0,
                text,
            };
            if !facade.contains(name) {
                let text = format!("exports `{name}`, but `recurrent` does not");
                problems.push(problem(text));
            }
            if library.hides_fields(root, name) && !made.contains(name) {
                let text = format!("exports `{name}`, but no function returns one");
                problems.push(problem(text));
            }
        }
    }
    Ok(problems)
}

/// The parsed files of all crates.
struct Library(Vec<(PathBuf, File)>);

impl Library {
    fn read(sources: &[Source]) -> Result<Self, Box<dyn Error>> {
        let mut files = Vec::new();
        for source in sources.iter().filter(|s| s.has_extension("rs")) {
            if [FACADE]
                .iter()
                .chain(&CRATES)
                .any(|root| source.path.starts_with(root))
            {
                let file = syn::parse_file(&source.text);
                let file = file.map_err(|e| format!("{}: {e}", source.path.display()))?;
                files.push((source.path.clone(), file));
            }
        }
        Ok(Self(files))
    }

    /// The names that a crate exports.
    fn exports(&self, root: &Path) -> Names {
        let mut names = self.module(&root.join("lib"));
        for (path, file) in &self.0 {
            if path.starts_with(root) {
                let shown = file.items.iter().filter(|item| match item {
                    Item::Macro(item) => !is_hidden(&item.attrs),
                    _ => false,
                });
                names.extend(shown.filter_map(exported_macro));
            }
        }
        names
    }

    /// The names that a module exports; `path` has no extension.
    fn module(&self, path: &Path) -> Names {
        let mut names = Names::new();
        let folder = match path.ends_with("lib") {
            true => path.with_file_name(""),
            false => path.to_owned(),
        };
        let candidates = [path.with_extension("rs"), path.join("mod.rs")];
        let Some((_, file)) = self.0.iter().find(|(p, _)| candidates.contains(p)) else {
            return names;
        };
        for item in &file.items {
            match item {
                Item::Use(item) if is_public(&item.vis, &item.attrs) => {
                    self.leaves(&item.tree, &folder, &mut names);
                }
                Item::Mod(item) if is_public(&item.vis, &item.attrs) => {
                    names.extend(self.module(&folder.join(item.ident.to_string())));
                }
                // The macro that calls another one with every cell.
                Item::Macro(item) => {
                    let name = item.mac.path.segments.last().map(|s| s.ident.to_string());
                    let definitions = self.0.iter().flat_map(|(_, file)| &file.items);
                    let called =
                        definitions.filter(|d| name.is_some() && exported_macro(d) == name);
                    for definition in called {
                        idents(definition.to_token_stream(), &mut names);
                    }
                }
                item => names.extend(defined(item)),
            }
        }
        names
    }

    /// The names that a `use` exports; those in a module if it exports a whole module.
    fn leaves(&self, tree: &UseTree, at: &Path, names: &mut Names) {
        match tree {
            UseTree::Path(path) => {
                let name = path.ident.to_string();
                let crate_root = Path::new(&name.replace('_', "-")).join("src");
                let is_crate = CRATES.iter().any(|root| Path::new(root) == crate_root);
                let at = if is_crate { crate_root } else { at.join(name) };
                self.leaves(&path.tree, &at, names);
            }
            UseTree::Group(group) => {
                group
                    .items
                    .iter()
                    .for_each(|tree| self.leaves(tree, at, names));
            }
            UseTree::Glob(_) => names.extend(self.module(at)),
            UseTree::Rename(renamed) => drop(names.insert(renamed.rename.to_string())),
            UseTree::Name(name) => {
                names.insert(name.ident.to_string());
                names.extend(self.module(&at.join(name.ident.to_string())));
            }
        }
    }

    /// Whether the type is a struct that only its crate can construct.
    fn hides_fields(&self, root: &Path, name: &str) -> bool {
        let files = self.0.iter().filter(|(path, _)| path.starts_with(root));
        files
            .flat_map(|(_, file)| &file.items)
            .any(|item| match item {
                Item::Struct(item) if item.ident == name => {
                    let private = |f: &syn::Field| !matches!(f.vis, Visibility::Public(_));
                    item.fields.iter().any(private)
                }
                _ => false,
            })
    }

    /// The types in the results of functions.
    fn made(&self) -> Names {
        let mut names = Names::new();
        let mut result = |output: &ReturnType| idents(output.to_token_stream(), &mut names);
        let mut own = Names::new();
        let mut in_macros = Names::new();
        for item in self.0.iter().flat_map(|(_, file)| &file.items) {
            match item {
                Item::Fn(item) => result(&item.sig.output),
                Item::Impl(item) => {
                    for of_impl in &item.items {
                        let function = match of_impl {
                            ImplItem::Fn(function) => function,
                            // What the methods of the trait return as their associated type.
                            ImplItem::Type(of_trait) => {
                                idents(of_trait.ty.to_token_stream(), &mut own);
                                continue;
                            }
                            _ => continue,
                        };
                        result(&function.sig.output);
                        let mut returned = Names::new();
                        idents(function.sig.output.to_token_stream(), &mut returned);
                        let takes_self = function.sig.receiver().is_some();
                        if returned.contains("Self") && !takes_self {
                            idents(item.self_ty.to_token_stream(), &mut own);
                        }
                    }
                }
                // Methods return these, or hand them to the types that users implement.
                Item::Trait(item) => {
                    for of_trait in &item.items {
                        if let TraitItem::Fn(function) = of_trait {
                            result(&function.sig.output);
                            idents(function.sig.inputs.to_token_stream(), &mut own);
                        }
                    }
                }
                Item::Struct(item) if is_read_from_json(&item.attrs) => {
                    own.insert(item.ident.to_string());
                }
                Item::Macro(item) if item.ident.is_none() => {
                    idents(item.mac.tokens.clone(), &mut in_macros);
                }
                _ => {}
            }
        }
        names.extend(own);
        names.extend(in_macros);
        names
    }
}

fn is_public(vis: &Visibility, attributes: &[Attribute]) -> bool {
    matches!(vis, Visibility::Public(_)) && !is_hidden(attributes)
}

fn is_hidden(attributes: &[Attribute]) -> bool {
    let doc = attributes.iter().filter(|a| a.path().is_ident("doc"));
    let mut lists = doc.filter_map(|a| a.meta.require_list().ok());
    lists.any(|list| list.tokens.to_string() == "hidden")
}

fn is_read_from_json(attributes: &[Attribute]) -> bool {
    let derives = attributes.iter().filter(|a| a.path().is_ident("derive"));
    let mut lists = derives.filter_map(|a| a.meta.require_list().ok());
    lists.any(|list| list.tokens.to_string().contains("Deserialize"))
}

/// The name of a macro that other crates can call.
fn exported_macro(item: &Item) -> Option<String> {
    match item {
        Item::Macro(item) if item.attrs.iter().any(|a| a.path().is_ident("macro_export")) => {
            item.ident.as_ref().map(Ident::to_string)
        }
        _ => None,
    }
}

/// The name of a public definition.
fn defined(item: &Item) -> Option<String> {
    let (vis, attributes, name) = match item {
        Item::Const(item) => (&item.vis, &item.attrs, &item.ident),
        Item::Enum(item) => (&item.vis, &item.attrs, &item.ident),
        Item::Fn(item) => (&item.vis, &item.attrs, &item.sig.ident),
        Item::Struct(item) => (&item.vis, &item.attrs, &item.ident),
        Item::Trait(item) => (&item.vis, &item.attrs, &item.ident),
        Item::Type(item) => (&item.vis, &item.attrs, &item.ident),
        _ => return None,
    };
    is_public(vis, attributes).then(|| name.to_string())
}

/// The names of types in a text.
fn idents(tokens: TokenStream, names: &mut Names) {
    for token in tokens {
        match token {
            TokenTree::Group(group) => idents(group.stream(), names),
            TokenTree::Ident(ident) => {
                let name = ident.to_string();
                if name.starts_with(char::is_uppercase) {
                    names.insert(name);
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::source;
    use super::*;

    const CORE: &str = "mod cells; pub mod wrappers; pub use cells::{ACell, ACellBuilder};";
    const CELLS: &str = "pub struct ACell(u8); pub struct ACellBuilder; \
                         impl ACellBuilder { pub fn build(self) -> Result<ACell> {} } \
                         #[macro_export] #[doc(hidden)] \
                         macro_rules! for_each { ($c:ident) => { $c! { ACell: ACellBuilder; } } }";

    fn problems(facade: &str, cells: &str) -> Vec<String> {
        let sources = [
            source("recurrent/src/lib.rs", facade),
            source("recurrent/src/cells.rs", "rnn_core::for_each!(aliases);"),
            source("rnn-core/src/lib.rs", CORE),
            source("rnn-core/src/cells.rs", cells),
            source("rnn-core/src/wrappers/mod.rs", "mod a; pub use a::Wrapper;"),
        ];
        let problems = check(&sources).unwrap();
        problems.into_iter().map(|problem| problem.text).collect()
    }

    #[test]
    fn what_the_facade_does_not_export_is_found() {
        let whole = "pub mod cells; pub use rnn_core::wrappers;";
        assert!(problems(whole, CELLS).is_empty());
        assert_eq!(
            problems("pub mod cells;", CELLS),
            ["exports `Wrapper`, but `recurrent` does not"]
        );
        assert_eq!(
            problems("pub use rnn_core::{ACell, wrappers};", CELLS),
            ["exports `ACellBuilder`, but `recurrent` does not"]
        );
    }

    #[test]
    fn types_without_constructor_are_found() {
        let facade = "pub mod cells; pub use rnn_core::wrappers;";
        let unmade = CELLS.replace("-> Result<ACell>", "");
        assert_eq!(
            problems(facade, &unmade),
            ["exports `ACell`, but no function returns one"]
        );
    }
}
