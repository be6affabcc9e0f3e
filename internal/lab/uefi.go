// SPDX-License-Identifier: Apache-2.0

package lab

import "errors"

func (l *Lab) firmware(o Options) []string { return nil }

func (l *Lab) uefi() (string, error) { return "", errors.New("not yet") }
