// Checks a published log with Go's own transparency log library (golang.org/x/mod/sumdb), which nobody here wrote: the
// checkpoint's signature, every tile against its root, every entry against its leaf, and proofs between all sizes asked for.
//
//	tlog FOLDER KEY [OLDSIZE OLDROOT]
package main

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// The height of C2SP's tiles.
const height = 8

func fail(format string, args ...interface{}) {
	fmt.Fprintf(os.Stderr, format+"\n", args...)
	os.Exit(1)
}

func check(err error, what string) {
	if err != nil {
		fail("%s: %v", what, err)
	}
}

type folder string

func (f folder) Height() int { return height }

// ReadTiles takes the library's paths without the height, as C2SP has them.
func (f folder) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	var data [][]byte
	for _, tile := range tiles {
		path := "tile/" + strings.TrimPrefix(tile.Path(), fmt.Sprintf("tile/%d/", height))
		bytes, err := os.ReadFile(filepath.Join(string(f), path))
		if err != nil {
			return nil, err
		}
		data = append(data, bytes)
	}
	return data, nil
}

func (f folder) SaveTiles([]tlog.Tile, [][]byte) {}

func (f folder) checkpoint(key string) tlog.Tree {
	text, err := os.ReadFile(filepath.Join(string(f), "checkpoint"))
	check(err, "checkpoint")
	verifier, err := note.NewVerifier(key)
	check(err, "key")
	opened, err := note.Open(text, note.VerifierList(verifier))
	check(err, "note")
	lines := strings.Split(opened.Text, "\n")
	if len(lines) != 4 || lines[0] != verifier.Name() {
		fail("the checkpoint is not of the log %s", verifier.Name())
	}
	return parse(lines[1], lines[2])
}

func parse(size, root string) tlog.Tree {
	n, err := strconv.ParseInt(size, 10, 64)
	check(err, "size")
	bytes, err := base64.StdEncoding.DecodeString(root)
	check(err, "root")
	tree := tlog.Tree{N: n}
	copy(tree.Hash[:], bytes)
	return tree
}

func (f folder) bundle(index, width int64) []byte {
	tile := tlog.Tile{H: height, L: -1, N: index, W: int(width)}
	path := "tile/entries/" + strings.TrimPrefix(tile.Path(), fmt.Sprintf("tile/%d/data/", height))
	bytes, err := os.ReadFile(filepath.Join(string(f), path))
	check(err, "bundle")
	return bytes
}

func main() {
	if len(os.Args) != 3 && len(os.Args) != 5 {
		fail("usage: tlog FOLDER KEY [OLDSIZE OLDROOT]")
	}
	f := folder(os.Args[1])
	tree := f.checkpoint(os.Args[2])
	hashes := tlog.TileHashReader(tree, f)
	for first := int64(0); first < tree.N; first += 256 {
		width := tree.N - first
		if width > 256 {
			width = 256
		}
		bytes := f.bundle(first/256, width)
		for index := first; index < first+width; index++ {
			if len(bytes) < 2 || len(bytes) < 2+int(binary.BigEndian.Uint16(bytes)) {
				fail("entry %d is cut off", index)
			}
			length := int(binary.BigEndian.Uint16(bytes))
			leaf := tlog.RecordHash(bytes[2 : 2+length])
			bytes = bytes[2+length:]
			proof, err := tlog.ProveRecord(tree.N, index, hashes)
			check(err, "proving an entry")
			check(tlog.CheckRecord(proof, tree.N, tree.Hash, index, leaf), "an entry's proof")
		}
		if len(bytes) > 0 {
			fail("bytes stand behind the entries from %d on", first)
		}
	}
	if len(os.Args) == 5 {
		old := parse(os.Args[3], os.Args[4])
		proof, err := tlog.ProveTree(tree.N, old.N, hashes)
		check(err, "proving growth")
		check(tlog.CheckTree(proof, tree.N, tree.Hash, old.N, old.Hash), "the proof of growth")
	}
	fmt.Println(tree.N)
}
