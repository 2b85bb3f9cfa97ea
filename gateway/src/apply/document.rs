//! The file as it is written: YAML with the line of each member.
//!
//! Nothing is known here of what it declares. Aliases and merge keys are
//! YAML's own and work; what they unfold to is bounded.

use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, SeqAccess, Visitor},
};
use serde_json::Number;
use serde_saphyr::Spanned;

use super::problem::Problem;

/// The file has at most 1 MiB: some thousand resources. A larger one is another file given by mistake.
pub const BYTES_MAX: usize = 1024 * 1024;

/// Nesting of the file: 16. A route's target stands at 5.
const DEPTH_MAX: usize = 16;

/// Values in the file with its aliases unfolded: 100 000, more than 1 MiB of declarations holds.
const NODES_MAX: usize = 100_000;

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Node {
    Null,
    Bool(bool),
    Number(Number),
    Text(String),
    List(Vec<Numbered>),
    Map(Vec<Member>),
}

/// A value of a list, and where it begins.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Numbered {
    pub(super) line: u64,
    pub(super) node: Node,
}

/// A member of a map, and where its name stands.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Member {
    pub(super) name: String,
    pub(super) line: u64,
    pub(super) node: Node,
}

/// Reads the members of the file, which is one map.
pub(super) fn read(text: &str) -> Result<Vec<Member>, Problem> {
    if text.len() > BYTES_MAX {
        let message = format!("the file has more than {BYTES_MAX} bytes");
        return Err(Problem::of_file(None, message));
    }
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! { max_depth: DEPTH_MAX, max_nodes: NODES_MAX, max_documents: 1 },
        strict_booleans: true,
        reject_unsupported_tags: true,
        // A line of the file may hold what was meant to be a secret.
        with_snippet: false,
    };
    let node = serde_saphyr::from_str_with_options(text, options);
    let node = node.map_err(|error: serde_saphyr::Error| {
        let line = error.location().map(|location| location.line());
        let message = error.to_string();
        // The line is told before it.
        let message = message.split(" at line ").next().unwrap_or_default();
        Problem::of_file(line, message.to_owned())
    })?;
    match node {
        Node::Map(members) => Ok(members),
        Node::Null | Node::Bool(_) | Node::Number(_) | Node::Text(_) | Node::List(_) => {
            let message = "the file must be a map of sections";
            Err(Problem::of_file(None, message.to_owned()))
        }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;

        impl<'de> Visitor<'de> for Any {
            type Value = Node;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a value")
            }

            fn visit_unit<E: Error>(self) -> Result<Node, E> {
                Ok(Node::Null)
            }

            fn visit_none<E: Error>(self) -> Result<Node, E> {
                Ok(Node::Null)
            }

            fn visit_bool<E: Error>(self, value: bool) -> Result<Node, E> {
                Ok(Node::Bool(value))
            }

            fn visit_i64<E: Error>(self, value: i64) -> Result<Node, E> {
                Ok(Node::Number(value.into()))
            }

            fn visit_u64<E: Error>(self, value: u64) -> Result<Node, E> {
                Ok(Node::Number(value.into()))
            }

            fn visit_f64<E: Error>(self, value: f64) -> Result<Node, E> {
                let number = Number::from_f64(value);
                number
                    .map(Node::Number)
                    .ok_or_else(|| E::custom("not a number"))
            }

            fn visit_str<E: Error>(self, value: &str) -> Result<Node, E> {
                Ok(Node::Text(value.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Node, A::Error> {
                let mut found = Vec::new();
                while let Some(one) = list.next_element::<Spanned<Node>>()? {
                    found.push(Numbered {
                        line: one.referenced.line(),
                        node: one.value,
                    });
                }
                Ok(Node::List(found))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
                let mut found = Vec::new();
                while let Some(name) = map.next_key::<Spanned<String>>()? {
                    found.push(Member {
                        line: name.referenced.line(),
                        name: name.value,
                        node: map.next_value()?,
                    });
                }
                Ok(Node::Map(found))
            }
        }

        deserializer.deserialize_any(Any)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_member_has_its_line() {
        let text = "# hub\nproviders:\n  - name: a\n    rate_limit: 7\n  - {name: b, on: null}\nkeys: []\n";
        let members = read(text).unwrap();
        let lines: Vec<_> = members.iter().map(|one| (&*one.name, one.line)).collect();
        assert_eq!(lines, [("providers", 2), ("keys", 6)]);
        let Node::List(list) = &members[0].node else {
            panic!("{members:?}")
        };
        let at: Vec<_> = list.iter().map(|one| one.line).collect();
        assert_eq!(at, [3, 5]);
        let Node::Map(first) = &list[0].node else {
            panic!("{list:?}")
        };
        assert_eq!(
            (first[1].line, &first[1].node),
            (4, &Node::Number(7.into()))
        );
        let Node::Map(second) = &list[1].node else {
            panic!("{list:?}")
        };
        assert_eq!((&*second[1].name, &second[1].node), ("on", &Node::Null));
    }

    #[test]
    fn what_is_no_map_or_has_a_member_twice_is_refused_with_its_line() {
        for (text, line) in [
            ("", None),
            ("- a", None),
            ("just text", None),
            ("providers: [\n", Some(1)),
            ("keys: []\nkeys: []\n", Some(2)),
            ("providers:\n - name: a\n   name: b\n", Some(3)),
            ("keys: !secret x\n", Some(1)),
            ("keys: *nowhere\n", Some(1)),
            ("keys: []\n---\nkeys: []\n", Some(2)),
        ] {
            let problem = read(text).unwrap_err();
            assert_eq!(problem.line, line, "{text:?}: {problem:?}");
        }
        let problem = read("keys:\n - secret: nx-literal\n   secret: nx-literal\n").unwrap_err();
        assert!(!problem.message.contains("nx-literal"), "{problem:?}");
    }

    #[test]
    fn what_is_too_large_or_unfolds_without_end_is_refused() {
        let large = format!("# {}\nkeys: []\n", "x".repeat(BYTES_MAX));
        assert!(read(&large).unwrap_err().message.contains("1048576"));
        let levels = (1..9).map(|level| {
            let before = format!("*a{}, ", level - 1).repeat(10);
            format!("a{level}: &a{level} [{before}]\n")
        });
        let first = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        let bomb: String = std::iter::once(first).chain(levels).collect();
        assert!(read(&bomb).is_err());
        let deep = format!("a: {}{}", "[".repeat(40), "]".repeat(40));
        assert!(read(&deep).is_err());
    }

    #[test]
    fn an_alias_stands_for_what_it_names() {
        let text = "a: &it {name: x}\nb: *it\nc:\n  <<: *it\n  more: 1\n";
        let members = read(text).unwrap();
        assert_eq!(
            members[0].node,
            Node::Map(vec![Member {
                name: "name".to_owned(),
                line: 1,
                node: Node::Text("x".to_owned()),
            }])
        );
        let Node::Map(merged) = &members[2].node else {
            panic!("{members:?}")
        };
        assert_eq!(merged.len(), 2);
    }
}
