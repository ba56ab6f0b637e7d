//! The tokens with a role: what Hugging Face calls `bos_token`, `eos_token` and so on.

use super::{TextError, directory::Directory};

/// The roles, as Hugging Face spells them.
pub(super) const ROLES: [&str; 7] =
    ["bos_token", "eos_token", "pad_token", "unk_token", "mask_token", "sep_token", "cls_token"];

/// Ids of the tokens with a role; absent where the model names none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpecialTokens {
    /// Begin of text.
    pub bos: Option<u32>,
    /// End of text: what training appends.
    pub eos: Option<u32>,
    /// Padding.
    pub pad: Option<u32>,
    /// What stands for the unknown.
    pub unk: Option<u32>,
    /// A gap to fill.
    pub mask: Option<u32>,
    /// Between two texts.
    pub sep: Option<u32>,
    /// What a classifier reads.
    pub cls: Option<u32>,
    /// Any of these ends a generation: `eos_token_id` of `generation_config.json`, else of `config.json`, else `eos`.
    pub stop: Vec<u32>,
}

/// The texts of the tokens with a role, in the order of [`ROLES`].
#[derive(Clone, Debug, Default)]
pub(super) struct Names([Option<String>; ROLES.len()]);

impl Names {
    /// Reads `tokenizer_config.json`, and where it is silent `special_tokens_map.json`.
    pub(super) fn read(dir: &Directory) -> Result<Names, TextError> {
        let documents = [dir.document("tokenizer_config.json")?, dir.document("special_tokens_map.json")?];
        let mut names = Names::default();
        for (name, role) in names.0.iter_mut().zip(ROLES) {
            for document in &documents {
                if name.is_none() {
                    *name = document.token(role)?.map(str::to_owned);
                }
            }
        }
        Ok(names)
    }

    /// The token of a role.
    pub(super) fn get(&self, role: &str) -> Option<&str> {
        self.iter().find(|&(named, _)| named == role).map(|(_, name)| name)
    }

    /// Names the token of a role unless it has one.
    pub(super) fn set_default(&mut self, role: &str, name: &str) {
        let at = ROLES.iter().position(|&known| known == role).expect("a role of the table");
        self.0[at].get_or_insert_with(|| name.to_owned());
    }

    /// Roles and their tokens.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&'static str, &str)> {
        ROLES.into_iter().zip(&self.0).filter_map(|(role, name)| Some((role, name.as_deref()?)))
    }
}

impl SpecialTokens {
    /// Ids by name where the tokenizer knows the name, else by the `…_token_id` of the configurations.
    pub(super) fn read(dir: &Directory, names: &Names, id: impl Fn(&str) -> Option<u32>) -> Result<Self, TextError> {
        let documents = [dir.document("generation_config.json")?, dir.document("config.json")?];
        let configured = |role: &str| -> Result<Vec<u32>, TextError> {
            for document in &documents {
                let ids = document.ids(&format!("{role}_id"))?;
                if !ids.is_empty() {
                    return Ok(ids);
                }
            }
            Ok(Vec::new())
        };
        let find = |role: &str| -> Result<Option<u32>, TextError> {
            let configured = configured(role)?.first().copied();
            Ok(names.get(role).and_then(&id).or(configured))
        };
        let eos = find("eos_token")?;
        let mut stop = configured("eos_token")?;
        if stop.is_empty() {
            stop.extend(eos);
        }
        Ok(SpecialTokens {
            bos: find("bos_token")?,
            eos,
            pad: find("pad_token")?,
            unk: find("unk_token")?,
            mask: find("mask_token")?,
            sep: find("sep_token")?,
            cls: find("cls_token")?,
            stop,
        })
    }
}
