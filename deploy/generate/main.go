// Generate writes the dashboards and alert rules of deploy/watch into the directory of
// its argument, deploy/ of the repository.
package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/razor-steering/razor/deploy/watch"
)

func main() {
	if err := generate(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "generate:", err)
		os.Exit(1)
	}
}

func generate(dir string) error {
	files, err := watch.Files()
	if err != nil {
		return err
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o644); err != nil {
			return err
		}
	}
	return nil
}
