//! What each role may do: the design's table, as code.

use nexus_events::{config_event::Role, id::KeyId};

use super::Principal;

/// What a route needs; each route of the table names one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Permission {
    /// Send requests to models.
    CallModels,
    /// See which models there are.
    ListModels,
    /// See providers, models, routes and settings, without secrets.
    ReadConfiguration,
    /// Change providers, models and routes.
    ChangeConfiguration,
    /// See, create and revoke keys.
    ManageKeys,
    /// Change users.
    ManageUsers,
    /// See totals of the whole hub.
    ReadStatistics,
    /// See what one conversation used.
    ReadUsage,
    /// See what was said.
    ReadContent,
}

/// How much of what a permission is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Nothing.
    No,
    /// What was done with the same key.
    Own,
    /// Everything.
    All,
}

impl Access {
    /// Whether what was done with `key` may be seen.
    pub fn covers(self, principal: &Principal, key: Option<KeyId>) -> bool {
        match self {
            Self::No => false,
            Self::Own => key == Some(principal.key.id),
            Self::All => true,
        }
    }
}

impl Permission {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::CallModels,
        Self::ListModels,
        Self::ReadConfiguration,
        Self::ChangeConfiguration,
        Self::ManageKeys,
        Self::ManageUsers,
        Self::ReadStatistics,
        Self::ReadUsage,
        Self::ReadContent,
    ];

    /// How much of it a role has.
    pub const fn of(self, role: Role) -> Access {
        use Role::{Admin, Auditor, Member, Operator, Viewer};
        match (self, role) {
            (_, Admin)
            | (Self::ListModels, _)
            | (Self::CallModels, Member)
            | (Self::ReadConfiguration | Self::ReadStatistics, Operator | Viewer)
            | (Self::ChangeConfiguration | Self::ManageKeys, Operator)
            | (Self::ReadUsage, Operator | Viewer | Auditor)
            | (Self::ReadContent, Auditor) => Access::All,
            (Self::ReadUsage | Self::ReadContent, Member) => Access::Own,
            (Self::CallModels, Operator | Auditor | Viewer)
            | (Self::ReadConfiguration | Self::ReadStatistics, Auditor | Member)
            | (Self::ChangeConfiguration | Self::ManageKeys, Auditor | Viewer | Member)
            | (Self::ReadContent, Operator | Viewer)
            | (Self::ManageUsers, Operator | Auditor | Viewer | Member) => Access::No,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One line for each role: which permissions it has, in the order of [`Permission::ALL`].
    #[test]
    fn the_table_is_the_designs() {
        let table = [
            (Role::Admin, "AAAAAAAAA"),
            (Role::Operator, "-AAAA-AA-"),
            (Role::Auditor, "-A-----AA"),
            (Role::Viewer, "-AA---AA-"),
            (Role::Member, "AA-----oo"),
        ];
        for (role, expected) in table {
            let has: String = Permission::ALL
                .map(|permission| match permission.of(role) {
                    Access::No => '-',
                    Access::Own => 'o',
                    Access::All => 'A',
                })
                .iter()
                .collect();
            assert_eq!(has, expected, "{role:?}");
        }
    }
}
