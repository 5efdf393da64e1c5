//! Objects as the rows people read: what `get` prints, for the REST door's Tables and for `stay`.
//!
//! Pure: an object and the time go in, cells come out. Kinds without a sheet of their own show name and age.

/// A sheet over the rule that turns a typed object into its row.
macro_rules! sheet {
    ($columns:expr, $kind:ty, $row:expr) => {
        $crate::table::Sheet { columns: $columns, row: |raw, now| Ok($row(&<$kind>::decode(raw)?, now)) }
    };
}

mod age;
mod core;
mod events;
mod network;
mod nodes;
mod pods;
mod workloads;

use std::fmt;

use prost::{DecodeError, Message};
use proto::k8s::meta::v1::PartialObjectMetadata;

pub use age::{age, since, span};

/// One column, as `meta.k8s.io/v1` describes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column {
    pub name: &'static str,
    pub cell: CellType,
    /// Shown by `-o wide` only.
    pub wide: bool,
    pub description: &'static str,
}

/// What a column's cells are in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CellType {
    /// The object's name; text.
    Name,
    Text,
    Integer,
}

/// One value of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cell {
    Text(String),
    Integer(i64),
}

/// One object's cells, one per column.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Row {
    pub cells: Vec<Cell>,
    /// Set where the object has run to its end: the reason, `Succeeded` or `Failed`.
    pub completed: Option<&'static str>,
}

/// How the objects of one kind are shown.
pub struct Sheet {
    pub columns: &'static [Column],
    row: fn(&[u8], i64) -> Result<Row, DecodeError>,
}

impl Sheet {
    /// The row of one object, from its encoded message, at a time in seconds since 1970.
    ///
    /// # Errors
    /// Where the bytes are not that kind's message.
    pub fn row(&self, raw: &[u8], now: i64) -> Result<Row, DecodeError> {
        (self.row)(raw, now)
    }
}

static NAME_AND_AGE: Sheet =
    sheet!(NAME_AND_AGE_COLUMNS, PartialObjectMetadata, |object: &PartialObjectMetadata, now| {
        let meta = object.metadata.clone().unwrap_or_default();
        Row::of([text(&meta.name), age(meta.creation_timestamp.as_ref(), now).into()])
    });

/// The sheet of a kind: `sheet("v1", "Pod")`.
pub fn sheet(api_version: &str, kind: &str) -> &'static Sheet {
    match (api_version, kind) {
        ("v1", "Pod") => &pods::SHEET,
        ("v1", "Node") => &nodes::SHEET,
        ("v1", "Service") => &network::SERVICES,
        ("v1", "Endpoints") => &network::ENDPOINTS,
        ("discovery.k8s.io/v1", "EndpointSlice") => &network::ENDPOINT_SLICES,
        ("v1", "ReplicationController") => &workloads::REPLICATION_CONTROLLERS,
        ("v1", "Namespace") => &core::NAMESPACES,
        ("v1", "ConfigMap") => &core::CONFIG_MAPS,
        ("v1", "Secret") => &core::SECRETS,
        ("v1", "ResourceQuota") => &core::RESOURCE_QUOTAS,
        ("coordination.k8s.io/v1", "Lease") => &core::LEASES,
        ("v1", "Event") => &events::CORE,
        ("events.k8s.io/v1", "Event") => &events::EVENTS,
        _ => &NAME_AND_AGE,
    }
}

/// The columns of the metadata-only view: name and the time it was made.
pub const NAME_AND_AGE_COLUMNS: &[Column] = &[NAME, AGE];

const NAME: Column = Column {
    name: "Name",
    cell: CellType::Name,
    wide: false,
    description: "The name, unique among the objects of this kind in its namespace.",
};
const AGE: Column = Column::text("Age", "Time since the object was created.");

impl Column {
    const fn text(name: &'static str, description: &'static str) -> Self {
        Self { name, cell: CellType::Text, wide: false, description }
    }

    const fn integer(name: &'static str, description: &'static str) -> Self {
        Self { name, cell: CellType::Integer, wide: false, description }
    }

    const fn wide(self) -> Self {
        Self { wide: true, ..self }
    }
}

impl CellType {
    /// The OpenAPI type of the column.
    pub fn type_name(self) -> &'static str {
        match self {
            Self::Name | Self::Text => "string",
            Self::Integer => "integer",
        }
    }

    /// The format that tells clients which column is the name.
    pub fn format(self) -> &'static str {
        if self == Self::Name { "name" } else { "" }
    }
}

impl Row {
    fn of<const N: usize>(cells: [Cell; N]) -> Self {
        Self { cells: cells.into(), completed: None }
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => out.write_str(text),
            Self::Integer(number) => write!(out, "{number}"),
        }
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<i64> for Cell {
    fn from(number: i64) -> Self {
        Self::Integer(number)
    }
}

fn text(value: &str) -> Cell {
    value.into()
}

/// The value, or what stands for its absence.
fn or<'a>(value: &'a str, absent: &'a str) -> &'a str {
    if value.is_empty() { absent } else { value }
}

/// `a=b,c=d`, or `<none>`.
fn selector(pairs: &std::collections::BTreeMap<String, String>) -> String {
    let pairs: Vec<String> = pairs.iter().map(|(key, value)| format!("{key}={value}")).collect();
    or(&pairs.join(","), "<none>").to_owned()
}

/// The first three, and how many more there are.
fn first_three(values: &[String], absent: &str) -> String {
    const SHOWN: usize = 3;
    match values {
        [] => absent.to_owned(),
        values if values.len() <= SHOWN => values.join(","),
        values => format!("{} + {} more...", values[..SHOWN].join(","), values.len() - SHOWN),
    }
}

#[cfg(test)]
pub(crate) mod show {
    //! Rows as text, for tests.

    use super::{Row, Sheet};

    /// One line per column: `name  cell`.
    pub fn row(sheet: &Sheet, row: &Row) -> String {
        assert_eq!(sheet.columns.len(), row.cells.len(), "a cell per column");
        let width = sheet.columns.iter().map(|column| column.name.len()).max().unwrap_or_default();
        let line = |(column, cell): (&super::Column, &super::Cell)| format!("{:width$}  {cell}\n", column.name);
        sheet.columns.iter().zip(&row.cells).map(line).collect()
    }
}
